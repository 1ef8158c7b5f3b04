"""Evaluation tasks: retrieval, reranking, similarity, classification, clustering and pair classification.

Imports `results`, `metrics` and the core.
"""
