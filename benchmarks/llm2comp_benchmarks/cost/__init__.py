"""Time and memory of encoding, training and indexing beside named peers, each system in a process of its own.

Imports `results`, the core, `llm2comp_indexes` and `llm2comp_serve`. The benchmarks `encode`, `train`, `index`,
`growth`, `stream`, `startup`, `serve` and `cluster` import the modules of this package and nothing of one another.
"""
