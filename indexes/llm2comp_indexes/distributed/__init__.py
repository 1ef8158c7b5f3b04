"""Encoding of a corpus by many processes on a cluster of Ray, block by block, into one shard or Parquet files.

Ray Data reads and hands on; each of its actors writes the blocks that it encodes as files of their own (`parts`), which
are what a later run goes on from, and to the table of a store if one is named. Imports `stores`, `export`, `builder`,
`format` and what lies below them; Ray itself is imported where it is used.
"""
