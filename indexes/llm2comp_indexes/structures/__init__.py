"""FAISS structures over stored vectors: which types exist, how one is trained, built, loaded and searched, on CPU or GPU.

Imports `format`.
"""
