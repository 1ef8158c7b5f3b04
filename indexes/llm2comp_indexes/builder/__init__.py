"""From a corpus, or from vectors, to a committed segment: read, split, encode, store, choose a structure, commit.

Imports `tuning`, `structures`, `lexical` and `format`; neither `search` nor `change`.
"""
