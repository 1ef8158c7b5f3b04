"""Audit of an index: how much of its texts a language model can read from their memories.

Imports `search`, `builder` and everything below them, and `llm2comp.analysis`.
"""
