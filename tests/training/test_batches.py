"""The rows of a run: every pass in another order, batches divided among devices, the same again for the same seed."""

import torch
from datasets import Dataset
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler, ProportionalBatchSampler
from torch.utils.data import ConcatDataset

from llm2comp.training.batches import RunBatches, RunRows


def test_every_pass_over_the_rows_has_its_own_order_and_misses_none() -> None:
    rows = [{"id": number} for number in range(7)]
    run = RunRows(rows, length=24, seed=5)
    met = [run[place]["id"] for place in range(len(run))]
    passes = [met[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3
    again = RunRows(rows, length=24, seed=5)
    assert [again[place]["id"] for place in reversed(range(24))] == met[::-1]
    assert [RunRows(rows, length=24, seed=6)[place]["id"] for place in range(24)] != met


def run_batches(sizes: list[int], devices: int, length: int) -> tuple[list[list[int]], ProportionalBatchSampler]:
    """Batches of a run with two rows per device, and the sampler of sentence-transformers for the same data."""
    texts = [f"text {number // 2}" for number in range(sum(sizes))]  # every text twice
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    sets = [
        Dataset.from_dict({"anchor": texts[start : start + size]}) for start, size in zip(starts, sizes, strict=True)
    ]
    made = []
    for kind, options in ((RunBatches, {"devices": devices, "length": length}), (ProportionalBatchSampler, {})):
        generator = torch.Generator().manual_seed(3)
        samplers = [
            NoDuplicatesBatchSampler(rows, 2 * devices, drop_last=True, generator=generator, seed=3) for rows in sets
        ]
        made.append(kind(ConcatDataset(sets), samplers, generator=generator, seed=3, **options))
    return list(made[0]), made[1]


def test_a_run_goes_on_after_all_rows_were_seen_and_devices_share_a_set() -> None:
    batches, library = run_batches([40, 24], 2, 70)
    assert len(batches) == 70
    assert all(len(batch) == 2 for batch in batches)
    together = [batches[place] + batches[place + 1] for place in range(0, 70, 2)]
    assert together[: len(list(library))] == list(library), "the first pass is the library's, dealt out"
    for rows in together:
        assert len({row >= 40 for row in rows}) == 1, "two data sets at one time"
        assert len({row // 2 for row in rows}) == 4, "a text twice among the candidates"
    one, _ = run_batches([40, 24], 1, 35)
    assert len(one) == 35
    again, _ = run_batches([40, 24], 2, 70)
    assert again == batches
    assert len({row for rows in together for row in rows}) > 60
