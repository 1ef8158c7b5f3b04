"""Vectors in databases: an index pushed to PostgreSQL, Qdrant, LanceDB or Milvus, and searched there.

`contract.py` says what a store does; each store has a module of that contract, and one that translates filters.
Imports every room but `change` and `builder`.
"""
