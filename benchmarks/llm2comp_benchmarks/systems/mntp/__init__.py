"""LLM2Vec's first stage, masked next-token prediction, as a baseline that is trained and saved like our own models.

Imports the core only.
"""
