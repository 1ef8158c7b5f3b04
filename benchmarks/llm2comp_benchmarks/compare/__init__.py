"""Which differences between two result files mean something: bootstrap intervals, paired tests, Holm's correction.

Imports `results`.
"""
