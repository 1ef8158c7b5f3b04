"""The tasks of mteb: our models described to it, its prompts, its results and samples.

Imports `results` and `metrics`.
"""
