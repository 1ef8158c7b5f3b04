"""What share of a text's worth the memories of models keep for a frozen language model.

Imports `results` and the core.
"""
