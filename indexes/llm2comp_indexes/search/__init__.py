"""An open index: segments, queries by vectors, words or both, and the hits.

Imports `structures`, `lexical`, `filters`, `tuning` (its report) and `format`; not `builder`.
"""
