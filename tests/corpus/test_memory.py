"""Memory of reading and cutting JSON lines: it stays as it is, however large the file is."""

import json
import sys
from pathlib import Path

import pytest

from tests.child_process import run_python
from tests.paths import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in kibibytes there"),
]

MOST_GROWTH = 24 * 2**20
"""Bytes; a file four times as large has 150,000 ids more, of 16 to 32 bytes each."""
TOKENIZER = ROOT / "llm2comp" / "bundled" / "llm2comp-tiny"
_READ = """
import resource, sys
from llm2comp.corpus.read import read_corpus
from llm2comp.corpus.split.splitter import Splitter
split = None
if len(sys.argv) > 2:
    from transformers import AutoTokenizer
    split = Splitter(AutoTokenizer.from_pretrained(sys.argv[2]), 128).split
for document in read_corpus(sys.argv[1]):
    if split:
        split(document)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def write(path: Path, megabytes: int) -> Path:
    text = "Bread rises slowly overnight in a cold room. " * 22
    line = json.dumps({"id": "%07d", "title": "On bread", "text": text, "year": 1999}) + "\n"
    with path.open("w") as file:
        file.writelines(line % number for number in range(megabytes * 10**6 // len(line)))
    return path


def test_reading_takes_no_more_for_a_file_four_times_as_large(tmp_path: Path) -> None:
    small, middle, large = (int(run_python(_READ, write(tmp_path / f"{size}.jsonl", size))) for size in (50, 100, 200))
    assert middle - small < MOST_GROWTH
    assert large - small < MOST_GROWTH


def test_nor_does_cutting(tmp_path: Path) -> None:
    small, large = (int(run_python(_READ, write(tmp_path / f"{size}.jsonl", size), TOKENIZER)) for size in (10, 40))
    assert large - small < MOST_GROWTH
