"""`llm2comp bench growth`: how time and memory grow with tokens, length, memory tokens and vocabulary.

Imports the modules of `cost`, `results` and the core; training steps are those of `cost.train` in child processes.
"""
