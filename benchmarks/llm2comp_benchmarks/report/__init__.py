"""Tables and plots of README.md and benchmarks/README.md, generated from result files.

Imports `ablation`, `compare`, `cost`, `results` and what lies below them.
"""
