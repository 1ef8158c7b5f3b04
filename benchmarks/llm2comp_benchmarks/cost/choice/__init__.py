"""What models of different sizes cost on the same texts, so that one can be chosen.

Each model runs in a process of its own. Imports what the costs share.
"""
