"""`llm2comp bench encode`: encoding beside sentence-transformers, transformers and llm2vec, same weights and texts.

Imports the modules of `cost`.
"""
