"""One evaluation: a system on a suite of tasks, or a TREC run on judgements.

Imports `systems`, `mteb`, `tasks` and `results`.
"""
