"""Result files: their records, read and written, resumed; tables of them; resampling of their samples.

Imports only `metrics`.
"""
