"""The choice of a structure and of its search effort, by measuring recall, latency and memory; its report and plot.

Imports `structures` and `format`.
"""
