"""Texts in: corpora, queries, judgements and training rows, read as streams of documents.

Files of any size are read line by line. Imports only `llm2comp.errors`; in particular no torch.
"""
