"""Vectors and shards that an attacker made: each is refused with an error or indexed, in a process whose end and memory are watched."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llm2comp_indexes import Part, encode_shard
from tests.paths import ROOT
from tests.word_encoder import WordEncoder

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bounds memory by setrlimit and /proc")


@pytest.fixture
def folder(tmp_path: Path, write_corpus: Callable[..., Path]) -> Path:
    """Vectors, ids and queries as .npy files, and three shards with metadata."""
    folder = tmp_path / "given"
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
    """How many of so many damages were refused; see `tests.indexes.fuzz_vectors`."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "indexes")]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tests.indexes.fuzz_vectors", str(folder), str(count), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=900)
    tried = done.stdout.splitlines()
    assert done.returncode == 0, f"{tried[-1:]}: ended with {done.returncode}: {done.stderr[-3000:]}"
    assert len(tried) == count + 1
    found = re.fullmatch(r"done: (\d+) refused", tried[-1])
    assert found
    return int(found[1])


def test_forged_vectors_and_shards_neither_crash_nor_fill_the_memory(folder: Path) -> None:
    assert 30 < fuzz(folder, 60, seed=1) < 60


@pytest.mark.slow
def test_thousands_of_forged_vectors_and_shards_neither_crash_nor_fill_the_memory(folder: Path) -> None:
    assert 500 < fuzz(folder, 1000, seed=2) < 1000
