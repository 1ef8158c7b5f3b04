"""The server of embeddings under load, beside the encoder alone, itself without batching, and a plain server.

Imports the modules of `cost`, `results`, `llm2comp_serve` and the core.
"""
