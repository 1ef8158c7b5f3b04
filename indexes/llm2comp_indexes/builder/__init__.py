"""From a corpus or given vectors to a committed segment: read, split, encode, store, choose a structure, commit.

Also shards: vectors encoded on several hosts, and their joining. Imports `tuning`, `structures`, `lexical`, `format`
and what lies below them; neither `search` nor `change`.
"""
