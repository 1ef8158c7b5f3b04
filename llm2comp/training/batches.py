"""Which rows each update of a run is made of: fixed by the seed from the first update to the last, whoever shares the work.

A run is one pass over a list as long as all its updates together. So there is no short batch at the end of an epoch,
the n-th update is the same after an interruption as without, and the same on one device as on several.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, Protocol

import numpy as np
from sentence_transformers.base.sampler import ProportionalBatchSampler
from torch.utils.data import BatchSampler, Dataset

from llm2comp.errors import SettingsError

__all__ = ["RunBatches", "RunRows", "enough_rows"]


class _Rows(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> dict[str, Any]: ...


class RunRows(Dataset[dict[str, Any]]):
    """The rows of a data set in the order a run meets them: pass after pass, each shuffled anew."""

    def __init__(self, rows: _Rows, *, wanted: int, seed: int) -> None:
        self._rows, self._wanted, self._seed = rows, wanted, seed
        self._order = lru_cache(maxsize=2)(self._shuffled)  # a batch may lie across two passes

    def __len__(self) -> int:
        return self._wanted

    def __getitem__(self, place: int) -> dict[str, Any]:
        turn, row = divmod(place, len(self._rows))
        return self._rows[int(self._order(turn)[row])]

    def _shuffled(self, turn: int) -> np.ndarray:
        return np.random.default_rng([self._seed, turn]).permutation(len(self._rows))


class RunBatches(ProportionalBatchSampler):
    """Batches of all data sets mixed by size, each out of one set and dealt to the devices in equal parts.

    Devices gather each other's texts as candidates, so what they hold at one time must have the same columns.
    """

    def __init__(
        self, dataset: Any, batch_samplers: Sequence[BatchSampler], *, devices: int, wanted: int, **options: Any
    ) -> None:
        super().__init__(dataset=dataset, batch_samplers=list(batch_samplers), **options)
        self._devices, self._wanted = devices, wanted
        self.batch_size //= devices

    def __len__(self) -> int:
        """Batches of the whole run, summed over devices."""
        return self._wanted

    def __iter__(self) -> Iterator[list[int]]:
        """The batches, one device's after the other's.

        Raises:
            SettingsError: If the data sets give no batch without a text twice.
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
                if made >= self._wanted:
                    return
            if made == before:
                raise SettingsError(
                    "the pairs repeat their texts so often that no batch without a text twice can be made; lower "
                    "batch_size"
                )


def enough_rows(rows: int, batch_size: int, sources: Sequence[str]) -> None:
    """Refuses data that do not fill one batch.

    Raises:
        SettingsError: Naming the sources and both numbers.
    """
    if rows < batch_size:
        raise SettingsError(
            f"{', '.join(sources)}: {rows} rows for training, fewer than one batch of {batch_size}; lower batch_size "
            "or add data"
        )
