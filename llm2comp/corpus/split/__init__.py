"""Texts cut into chunks that end at headings, paragraphs and sentences, within a budget of tokens.

A document goes in with a tokenizer and a budget; pieces with their places in its text come out. Imports `documents` of
the corpora, `errors`, and markdown-it and ICU, which parse Markdown and find sentences; knows nothing of indexes.
"""
