"""Which rows each update of a run consists of: the seed alone decides, not interruptions or the number of devices.

A run is one pass over a list as long as all its updates together. So there is no short batch at the end of an epoch,
and the n-th update is the same whether or not the run was interrupted, on one device and on several.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, Protocol

import numpy as np
from sentence_transformers.base.sampler import ProportionalBatchSampler
from torch.utils.data import BatchSampler, Dataset

from llm2comp.errors import SettingsError

__all__ = ["HELDOUT_ROWS", "MixedRows", "Rows", "RunBatches", "RunRows", "enough_rows", "share_of_rows"]

HELDOUT_ROWS = 128
"""Largest number of rows that the held-out loss of stages 0 and 1 is measured on."""


class Rows(Protocol):
    """A data set."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> dict[str, Any]: ...


class RunRows(Dataset[dict[str, Any]]):
    """Rows of a data set in the order of a run: pass after pass, each in another random order.

    Args:
        rows: The data set.
        length: Number of rows of the whole run.
        seed: Seed of the orders.
    """

    def __init__(self, rows: Rows, *, length: int, seed: int) -> None:
        self._rows, self._length, self._seed = rows, length, seed
        self._order = lru_cache(maxsize=2)(self._shuffled)  # a batch may span two passes

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: int) -> dict[str, Any]:
        turn, row = divmod(place, len(self._rows))
        return self._rows[int(self._order(turn)[row])]

    def _shuffled(self, turn: int) -> np.ndarray:
        return np.random.default_rng([self._seed, turn]).permutation(len(self._rows))


class MixedRows(Dataset[dict[str, Any]]):
    """Rows of a run from two data sets, evenly mixed: of any first n rows, `share_of_rows(n, share)` are of the second.

    Args:
        rows: Rows of the first data set, in the order of the run.
        others: Those of the second.
        share: Share of the second.
    """

    def __init__(self, rows: Rows, others: Rows, *, share: float) -> None:
        self._rows, self._others, self._share = rows, others, share

    def __len__(self) -> int:
        return len(self._rows) + len(self._others)

    def __getitem__(self, place: int) -> dict[str, Any]:
        before = share_of_rows(place, self._share)
        if share_of_rows(place + 1, self._share) > before:
            return self._others[before]
        return self._rows[place - before]


def share_of_rows(rows: int, share: float) -> int:
    """Number of so many rows that are a share of them, rounded."""
    return int(rows * share + 0.5)


class RunBatches(ProportionalBatchSampler):
    """Batches of a run, each from one data set, drawn in proportion to the sizes and divided equally among the devices.

    Devices gather each other's texts as candidates, so their batches of one update must have the same columns.

    Args:
        dataset: All data sets, concatenated.
        batch_samplers: One sampler per data set; its batches are those of all devices together.
        devices: Number of devices.
        length: Number of batches of the whole run, summed over devices.
        **options: To `ProportionalBatchSampler`.
    """

    def __init__(
        self, dataset: Any, batch_samplers: Sequence[BatchSampler], *, devices: int, length: int, **options: Any
    ) -> None:
        super().__init__(dataset=dataset, batch_samplers=list(batch_samplers), **options)
        self._devices, self._length = devices, length
        self.batch_size //= devices

    def __len__(self) -> int:
        """Number of batches of the whole run, summed over devices."""
        return self._length

    def __iter__(self) -> Iterator[list[int]]:
        """Batches as row numbers; those of one update follow one another, device by device.

        Raises:
            SettingsError: If no batch without repeated texts can be formed.
        """
        made = 0
        for turn in count():
            self.set_epoch(turn)
            before = made
            for batch in super().__iter__():
                size = len(batch) // self._devices
                for device in range(self._devices):
                    yield batch[device * size : (device + 1) * size]
                    made += 1
                if made >= self._length:
                    return
            if made == before:
                raise SettingsError(
                    "the pairs repeat their texts so often that no batch without a text twice can be made; lower "
                    "batch_size"
                )


def enough_rows(rows: int, batch_size: int, sources: Sequence[str]) -> None:
    """Checks that there are enough rows for one batch.

    Raises:
        SettingsError: Naming the sources and both numbers.
    """
    if rows < batch_size:
        raise SettingsError(
            f"{', '.join(sources)}: {rows} rows for training, fewer than one batch of {batch_size}; lower batch_size "
            "or add data"
        )
