"""Hard negatives for files of training pairs: passages of other rows that a model ranks highest for a query.

`settings` is light to import, `mine` works on the rows of one file, `files` reads and writes folders.
Imports `llm2comp.model` and what lies below it; of the rest of `llm2comp.training` settings, folders of runs and the
comparison of texts by letters.
"""
