"""Choice of a structure and its search parameters by measured recall, latency and memory, with report and plot.

Imports `structures`, `format` and what lies below them.
"""
