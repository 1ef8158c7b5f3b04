"""Metadata filters: the parser of filter expressions, and their evaluation over the rows of a segment.

Imports `format` and what lies below it.
"""
