"""One copy of a language model, read two ways: as an encoder (both directions, adapter on) and as a frozen reader (causal).

Here live loading, the probe that a model must pass, packed attention, the adapter, and what the hardware offers.
Imports only `llm2comp.errors`.
"""
