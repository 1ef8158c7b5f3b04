"""The systems that can be scored, by name: models, BM25, random vectors, poolings without training, LLM2Vec's MNTP.

Imports `tasks` (for the protocols of a system) and `metrics`.
"""
