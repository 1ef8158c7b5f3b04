"""Time and memory: encoding, training and indexing beside named peers, each system in a process of its own.

Imports `results`; its rooms `encode`, `train`, `index`, `growth` and `stream` import the modules that stand here.
"""
