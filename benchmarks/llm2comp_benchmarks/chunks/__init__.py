"""How texts are cut into chunks, measured by the passages and answers that a search of the chunks finds.

Imports `results`, the core and the indexes.
"""
