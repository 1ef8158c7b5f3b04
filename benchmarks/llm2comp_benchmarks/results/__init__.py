"""Result files: how a run is recorded, read back and resumed; tables of results and resampling of their samples.

Imports `metrics` and the core.
"""
