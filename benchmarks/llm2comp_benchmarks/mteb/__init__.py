"""Tasks of the mteb package: our models described to it, its prompts, results and samples.

Imports `results`, `metrics` and the core.
"""
