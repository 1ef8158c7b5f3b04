"""Files of an index on disk: segments, manifest, commits, lock, verification.

Every file is written, checksummed and read back here, and nowhere else. Imports the core and, of this package, only
`options` and `faiss_module`.
"""
