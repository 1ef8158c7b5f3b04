"""Comparison of result files: bootstrap intervals, paired tests and Holm's correction.

Imports `results` and what lies below it.
"""
