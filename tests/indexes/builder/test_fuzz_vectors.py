"""Forged vectors and shards: each is refused or indexed, without a crash and within bounded memory."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llm2comp_indexes import Part, encode_shard
from tests.indexes.processes import run_python
from tests.word_encoder import WordEncoder

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bounds memory by setrlimit and /proc")


@pytest.fixture
def folder(tmp_path: Path, write_corpus: Callable[..., Path]) -> Path:
    """Vectors, ids and queries as .npy files, and three shards with metadata."""
    folder = tmp_path / "vectors"
    corpus = write_corpus(
        {"_id": f"d{row}", "text": f"bread and rain {row}", "year": 2000 + row, "tags": ["a", "é"]} for row in range(12)
    )
    for shard in (1, 2, 3):
        encode_shard([corpus], folder / "shards", Part(shard, 3), model=WordEncoder())
    draw = np.random.default_rng(0)
    np.save(folder / "v.npy", draw.standard_normal((40, 16), np.float32))
    np.save(folder / "q.npy", draw.standard_normal((5, 16)))
    np.save(folder / "ids.npy", np.array([f"x{row}" for row in range(40)]))
    return folder


def fuzz(folder: Path, count: int, seed: int) -> int:
    """Number of damages, out of `count`, that were refused; see `tests.indexes.fuzz_vectors`."""
    lines = run_python("-m", "tests.indexes.fuzz_vectors", folder, count, seed).splitlines()
    assert len(lines) == count + 1
    summary = re.fullmatch(r"done: (\d+) refused", lines[-1])
    assert summary
    return int(summary[1])


def test_forged_vectors_and_shards_neither_crash_nor_fill_the_memory(folder: Path) -> None:
    assert 30 < fuzz(folder, 60, seed=1) < 60


@pytest.mark.slow
def test_thousands_of_forged_vectors_and_shards_neither_crash_nor_fill_the_memory(folder: Path) -> None:
    assert 500 < fuzz(folder, 1000, seed=2) < 1000
