"""`llm2comp bench index`: our indexes beside plain FAISS and autofaiss on the same vectors."""
