"""FAISS structures over the stored vectors: the types, and how one is trained, built, loaded and searched.

Covers CPU and GPU. Imports `format` and what lies below it.
"""
