"""Readers of corpora, queries, judgements and training rows: files of any size as streams of documents.

Nothing here needs torch or a model. Imports only `llm2comp.errors` and the small modules beside it.
"""
