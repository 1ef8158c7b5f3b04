"""Garbage collection turned off while large packages are imported."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["uncollected"]


@contextmanager
def uncollected() -> Iterator[None]:
    """Turns garbage collection off within the block, and counts everything made in it as old afterwards.

    torch, transformers and sentence-transformers make half a million objects that stay. The collector would walk all of
    them again and again, which takes a sixth of the time of their import.
    """
    if not gc.isenabled():  # the program has turned it off, or another thread imports
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # what the program has frozen stays frozen
            gc.freeze()
            gc.unfreeze()  # both together move objects to the oldest generation without a walk
        gc.enable()
