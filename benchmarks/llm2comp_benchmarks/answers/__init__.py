"""Questions answered from memory tokens, from the texts themselves, and from nothing.

Imports `results`, and the core.
"""
