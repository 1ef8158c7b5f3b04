"""Time and memory of encoding, training and indexing beside named peers, each system in a process of its own.

Imports `results`, the core and `llm2comp_indexes`. The benchmarks `encode`, `train`, `index`, `growth`, `stream`
and `startup` import the modules of this package and nothing of one another.
"""
