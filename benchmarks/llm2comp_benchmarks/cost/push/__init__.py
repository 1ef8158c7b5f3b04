"""An index pushed to stores, beside the store's own bulk loader, and searches there, beside the index.

Imports what the costs share, and the stores of the index.
"""
