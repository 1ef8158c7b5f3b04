"""Time and memory of encoding, training and indexing beside named peers, each system in a process of its own.

Imports `results`, the core and `llm2comp_indexes`. The sub-packages import the modules of this package.
"""
