"""`llm2comp bench encode`: encoding beside sentence-transformers, transformers and llm2vec on the same weights and texts."""
