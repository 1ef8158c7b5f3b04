"""Open indexes: their segments, search by vectors, words or both, and the hits.

Imports `tuning`, `structures`, `lexical`, `filters`, `format` and what lies below them; not `builder`.
"""
