"""Systems to evaluate, by name: models, BM25, random vectors, poolings without training, LLM2Vec's MNTP.

Imports `tasks` (the protocols of a system), `metrics` and the core.
"""
