"""`llm2comp bench train`: training steps of stage 1 beside a plain implementation of the method.

Imports the modules of `cost`, `results` and the core.
"""
