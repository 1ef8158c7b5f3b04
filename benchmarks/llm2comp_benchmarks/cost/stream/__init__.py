"""A long stream of texts through `llm2comp index build`, killed half-way: memory, and the cost of the kill.

Imports the modules of `cost`, `results`, `llm2comp_indexes` and the core.
"""
