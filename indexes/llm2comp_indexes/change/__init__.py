"""Changes of an existing index: add, sync, delete and merge, each in one commit.

Imports `builder`, `search` and everything below them.
"""
