"""The paper's ablation: pretexts, stages and seeds trained, measured and told in tables and plots.

Imports `evaluate`, `systems` and `results`.
"""
