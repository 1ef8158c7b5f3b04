"""Texts cut into chunks that end at headings, paragraphs and sentences, within a budget of tokens.

Knows nothing of indexes: a document goes in with a tokenizer and a budget; pieces with places in its text come out.
"""
