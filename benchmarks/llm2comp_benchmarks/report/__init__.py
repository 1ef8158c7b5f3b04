"""The pages made of result files: tables and plots of README.md and benchmarks/README.md.

Imports `ablation`, `compare`, `cost` and `results`.
"""
