"""Pairs of query and passage derived from raw text by rules: training data for stage 3.

Imports `llm2comp.corpus` and `llm2comp.errors`; nothing of the rest of `llm2comp.training`.
"""
