"""`llm2comp bench growth`: growth of time and memory with tokens, text length, memory tokens and vocabulary.

Imports the modules of `cost` and opens the training steps of `train`.
"""
