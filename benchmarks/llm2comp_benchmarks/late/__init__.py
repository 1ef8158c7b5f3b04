"""Late interaction over memory tokens beside one vector a text: quality, bytes and milliseconds.

Imports `tasks`, `results`, the core and the indexes.
"""
