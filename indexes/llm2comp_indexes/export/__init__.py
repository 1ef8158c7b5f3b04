"""An index as files that other tools read: Parquet, NumPy, JSON lines, Lance.

Rows are streamed from the search side, read back and compared. Imports every room but `change` and `builder`.
"""
