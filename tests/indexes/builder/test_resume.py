"""Stopped builds: what they leave, and that the same command resumes after the last finished block."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import IndexFolderError
from llm2comp_indexes import build_index, open_index, verify_index
from llm2comp_indexes.builder import blocks as row_blocks
from tests.indexes.live import contents, names
from tests.indexes.processes import run_python
from tests.paths import ROOT
from tests.word_encoder import WordEncoder

PATHS = [str(ROOT), str(ROOT / "indexes")]
SLOW_BUILD = """
import signal, sys, time
sys.path[:0] = {paths!r}
from llm2comp_indexes import build_index
from llm2comp_indexes.builder import blocks as row_blocks
from tests.word_encoder import WordEncoder
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is begun with it ignored
row_blocks.BLOCK, row_blocks._PIECE = {block}, 1
class Slow(WordEncoder):
    def encode_document(self, inputs, /, **options):
        print("encoding", self.documents, flush=True)
        time.sleep({seconds})
        return super().encode_document(inputs)
build_index([{corpus!r}], {output!r}, model=Slow(), overwrite=True)
"""


def start_slow_build(
    corpus: Path, output: Path, *, finished: int = 1, seconds: float = 0.3, block: int = 1
) -> "subprocess.Popen[str]":
    """A process that builds an index and encodes one document at a time, once `finished` blocks are on the device.

    Args:
        corpus: The corpus.
        output: Folder of the index.
        finished: Number of finished blocks to wait for.
        seconds: Time that a document takes.
        block: Number of documents in a block.
    """
    script = SLOW_BUILD.format(paths=PATHS, seconds=seconds, block=block, corpus=str(corpus), output=str(output))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        # While a block is encoded, the one before may still be being written, but not the one before that
        if line == f"encoding {finished + 1 if finished else 0}\n":
            break
    return process


def finished_documents(output: Path) -> int:
    """Number of finished blocks (by default, documents) in the journal."""
    [journal] = output.glob("segments/*/journal.jsonl")
    return journal.read_bytes().count(b"\n") - 1


def assert_goes_on(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asserts that there is no index yet, that a second build encodes only the rest and ends in the same files."""
    output = tmp_path / "idx"
    with pytest.raises(
        IndexFolderError,
        match="holds no finished index, only an unfinished build; run its command again to continue it",
    ):
        open_index(output)
    monkeypatch.setattr(row_blocks, "BLOCK", 1)
    done, encoder = finished_documents(output), WordEncoder()
    assert done >= 1
    report = build_index([corpus], output, model=encoder)
    assert report.encoded == encoder.documents == 5 - done
    assert report.documents == 5
    verify_index(output)
    build_index([corpus], tmp_path / "whole", model=WordEncoder())
    one, two = contents(output), contents(tmp_path / "whole")
    assert one.keys() == two.keys()
    assert {name for name in one if one[name] != two[name]} <= {
        "manifest.json",
        "segments/000001/report.json",
    }  # what a clock measured


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_build_goes_on_behind_its_last_finished_block(
    tmp_path: Path, corpus: Path, stop: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_slow_build(corpus, tmp_path / "idx") as process:
        process.send_signal(stop)
        process.communicate(timeout=30)
    assert process.returncode != 0
    assert_goes_on(tmp_path, corpus, monkeypatch)


def test_a_build_killed_within_a_block_encodes_that_one_again_and_no_other(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_slow_build(
        corpus, tmp_path / "idx", finished=2, block=2
    ) as process:  # of five documents, the fourth: the second of the second block
        process.kill()
        process.communicate(timeout=30)
    assert finished_documents(tmp_path / "idx") == 1  # the first block was written while the third document was encoded
    monkeypatch.setattr(row_blocks, "BLOCK", 2)
    encoder = WordEncoder()
    report = build_index([corpus], tmp_path / "idx", model=encoder)
    assert report.encoded == encoder.documents == 3
    assert (report.documents, verify_index(tmp_path / "idx").documents) == (5, 5)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_build_stopped_before_its_first_block_leaves_nothing(
    tmp_path: Path, corpus: Path, stop: signal.Signals
) -> None:
    with start_slow_build(corpus, tmp_path / "new" / "idx", finished=0) as process:
        assert (tmp_path / "new" / "idx").exists()
        process.send_signal(stop)
        process.communicate(timeout=30)
    assert process.returncode != 0
    assert names(tmp_path) == {"corpus.jsonl"}


def test_a_killed_overwrite_keeps_the_old_index_and_goes_on(
    index_folder: Path, corpus: Path, encoder: WordEncoder
) -> None:
    before = contents(index_folder)
    with start_slow_build(corpus, index_folder) as process:
        process.kill()
    assert contents(index_folder).items() >= {name: data for name, data in before.items() if name != "LOCK.pid"}.items()
    verify_index(index_folder)
    assert len(open_index(index_folder, model=encoder).search(["bread"], k=9)[0]) == 5


def test_a_second_builder_is_refused_with_the_first_ones_number(
    tmp_path: Path, corpus: Path, encoder: WordEncoder
) -> None:
    with start_slow_build(corpus, tmp_path / "idx") as process:
        with pytest.raises(IndexFolderError, match=f"being written by process {process.pid}; wait for it, or stop it"):
            build_index([corpus], tmp_path / "idx", model=encoder)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert len(open_index(tmp_path / "idx")) == 5


def test_after_an_error_in_the_model_only_the_rest_is_encoded(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(WordEncoder):
        def encode_document(
            self, inputs: list[str], /, *, batch_size: int = 32, show_progress_bar: bool | None = None
        ) -> Any:
            if self.documents == 3:
                raise MemoryError
            return super().encode_document(inputs)

    monkeypatch.setattr(row_blocks, "BLOCK", 1)
    with pytest.raises(MemoryError):
        build_index([corpus], tmp_path / "idx", model=Failing())
    assert_goes_on(tmp_path, corpus, monkeypatch)


def test_another_model_does_not_go_on_with_the_first_ones_vectors(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_slow_build(corpus, tmp_path / "idx") as process:
        process.kill()
    monkeypatch.setattr(row_blocks, "BLOCK", 1)
    other = WordEncoder(16)
    build_index([corpus], tmp_path / "idx", model=other)
    assert other.documents == 5
    assert verify_index(tmp_path / "idx").dimension == 16
    assert len(names(tmp_path / "idx" / "segments")) == 1


FULL_DEVICE = """
import resource
from llm2comp.errors import IndexFolderError
from llm2comp_indexes import build_index
from tests.word_encoder import WordEncoder
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    build_index([{corpus!r}], {output!r}, model=WordEncoder({dimension}))
except IndexFolderError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files by setrlimit")
@pytest.mark.parametrize(
    ("name", "dimension", "kept"),
    [("documents.jsonl", 2, False), ("vectors.faiss", 256, False), ("manifest.json", 2, True)],
)
def test_a_full_device_is_told_and_loses_nothing_that_was_finished(
    tmp_path: Path, write_corpus: Callable[..., Path], name: str, dimension: int, kept: bool
) -> None:
    rows = 3 if name == "manifest.json" else 60
    corpus = write_corpus(
        {"_id": f"d{row}", "text": "bread " * (100 if name == "documents.jsonl" else 1)} for row in range(rows)
    )
    build_index([corpus], tmp_path / "idx", model=WordEncoder(dimension))
    [file] = (tmp_path / "idx").rglob(name)
    limit = file.stat().st_size - 1  # the last byte of this file is one too many
    assert limit == max(path.stat().st_size for path in (tmp_path / "idx").rglob("*") if path.is_file()) - 1, (
        "this file is the largest"
    )
    shutil.rmtree(tmp_path / "idx")
    script = FULL_DEVICE.format(corpus=str(corpus), output=str(tmp_path / "idx"), limit=limit, dimension=dimension)
    output = run_python("-c", script, timeout=60)
    assert "no space left" in output
    assert "free some space and run this again" in output
    assert (tmp_path / "idx").exists() == kept
    encoder = WordEncoder(dimension)
    build_index([corpus], tmp_path / "idx", model=encoder)
    assert encoder.documents == (0 if kept else rows)
    verify_index(tmp_path / "idx")
