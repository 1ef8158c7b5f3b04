"""Evaluation of one system on a suite of tasks, or of a TREC run against judgements.

Imports `systems`, `mteb`, `tasks`, `results` and what lies below them.
"""
