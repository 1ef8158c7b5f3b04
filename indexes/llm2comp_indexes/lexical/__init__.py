"""The BM25 index beside the vectors: tokenizer, writer, searcher.

Imports `format`.
"""
