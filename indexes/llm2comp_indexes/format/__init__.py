"""The files of an index on disk: segments, manifest, commits, locks, and their verification.

A file is written here, checksummed here and read back here. Imports only the options of the package, its FAISS loader
and the core's errors and documents.
"""
