"""One resident copy of a language model, as encoder (bidirectional, adapter on) and as frozen reader (causal).

Here live loading, the probe that a model must pass, packed attention, the adapter, and the properties of the hardware.
Imports only `llm2comp.errors` and `llm2comp.bundled_models`.
"""
