"""The BM25 index beside the vectors: tokenizer, writer and searcher.

Imports `format` and what lies below it.
"""
