"""A long stream of texts through `index build`, killed half-way: memory use, and the cost of the restart.

Imports the modules of `cost`.
"""
