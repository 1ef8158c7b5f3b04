"""Changes of an index that stands: add, delete, merge; each is one commit.

Imports `builder`, `search` and what lies below them.
"""
