"""`llm2comp bench index`: indexes beside plain FAISS and autofaiss on the same vectors."""
