"""`llm2comp bench index`: our indexes beside plain FAISS and autofaiss on the same vectors.

Imports the modules of `cost`, `results`, `llm2comp_indexes` and the core.
"""
