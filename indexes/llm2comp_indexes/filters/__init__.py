"""Filters on metadata: the expression of a user, parsed, and the rows that it keeps.

Imports `format`.
"""
