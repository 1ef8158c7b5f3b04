"""The paper's ablation: pretexts, stages and seeds trained and measured, with tables, plots and tested claims.

Imports `evaluate`, `systems`, `results` and what lies below them.
"""
