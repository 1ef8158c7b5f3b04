"""LLM2Vec's first stage, masked next-token prediction, as a baseline: trained and loaded like our own models.

Imports the core only.
"""
