"""Hard negatives for files of training pairs, found with a model: the passages of other rows that it ranks highest.

`settings` is light to import, `mine` works on the rows of one file, `files` reads and writes folders.
"""
