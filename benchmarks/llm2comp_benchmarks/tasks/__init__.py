"""The tasks that a system is scored on: retrieval, reranking, similarity, classification, clustering, pairs.

Imports `results` and `metrics`.
"""
