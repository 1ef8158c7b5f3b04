"""Building: what is written, what is refused, and that nothing half-written is ever left."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import llm2comp
from llm2comp.errors import CorpusError, IndexFolderError, LLM2CompError, SettingsError
from llm2comp_indexes import build_index, open_index
from tests.word_encoder import WordEncoder

ROOT = Path(__file__).parents[2]
SLOW_BUILD = """
import sys, time, signal
from pathlib import Path
sys.path[:0] = {path!r}
from llm2comp_indexes import build, build_index
from tests.word_encoder import WordEncoder
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
build.BLOCK = 1
def pause(count):
    print(count, flush=True)
    time.sleep(0.2)
build_index([{corpus!r}], {output!r}, model=WordEncoder(), overwrite=True, on_block=pause)
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_is_laid_out_as_documented(index_folder: Path) -> None:
    manifest = json.loads((index_folder / "manifest.json").read_text())
    expected = {"format": 1, "dimension": 32, "metric": "inner_product", "factory": "Flat", "documents": 5, "model": {"name": None, "fingerprint": "words-32"}}
    assert {name: manifest[name] for name in expected} == expected
    assert {"llm2comp", "faiss", "numpy", "python"} <= set(manifest["created_by"])
    [segment] = manifest["segments"]
    folder = index_folder / "segments" / "000001"
    assert segment["name"] == "000001"
    assert names(folder) == set(segment["files"])
    for name, record in segment["files"].items():
        data = (folder / name).read_bytes()
        assert record == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    documents = [json.loads(line) for line in (folder / "documents.jsonl").read_text().splitlines()]
    assert documents[0] == {"id": "d0", "title": "Title 0", "text": "how bread rises in the oven", "metadata": {"year": 2000}}


def test_the_same_build_gives_the_same_bytes(tmp_path: Path, corpus: Path, encoder: WordEncoder) -> None:
    for name in ("one", "two"):
        build_index([corpus], tmp_path / name, model=encoder)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_the_report_counts(tmp_path: Path, corpus: Path, encoder: WordEncoder) -> None:
    with corpus.open("a") as file:
        file.write('{"_id": "d0", "text": "again"}\nnot json\n')
    messages: list[str] = []
    blocks: list[int] = []
    report = build_index([corpus], tmp_path / "idx", model=encoder, on_error="skip", on_skip=messages.append, on_block=blocks.append)
    assert (report.documents, report.skipped, report.dimension) == (5, 2, 32)
    assert report.bytes == sum(len(data) for name, data in contents(tmp_path / "idx").items() if name.startswith("segments"))
    assert 0 < report.encode_seconds <= report.seconds
    assert ["corpus.jsonl:6" in messages[0], "corpus.jsonl:7" in messages[1]] == [True, True]
    assert blocks == [5]


def test_several_corpora_are_joined_in_order(tmp_path: Path, corpus: Path, write_corpus: Callable[..., Path], encoder: WordEncoder) -> None:
    more = write_corpus([{"_id": "e0", "text": "bread"}], "more.jsonl")
    build_index([corpus, more], tmp_path / "idx", model=encoder)
    [hits] = open_index(tmp_path / "idx", model=encoder).search(["bread"], k=9)
    assert hits[0].id == "e0"
    assert len(hits) == 6


def test_an_id_in_two_corpora_is_refused_or_skipped(tmp_path: Path, corpus: Path, write_corpus: Callable[..., Path], encoder: WordEncoder) -> None:
    more = write_corpus([{"_id": "d3", "text": "other"}, {"_id": "e0", "text": "bread"}], "more.jsonl")
    with pytest.raises(CorpusError, match=r'more.jsonl: id "d3"'):
        build_index([corpus, more], tmp_path / "idx", model=encoder)
    report = build_index([corpus, more], tmp_path / "idx", model=encoder, on_error="skip", on_skip=lambda _: None)
    assert (report.documents, report.skipped) == (6, 1)


def test_bad_corpora_leave_nothing(tmp_path: Path, corpus: Path, write_corpus: Callable[..., Path], encoder: WordEncoder) -> None:
    empty, broken = write_corpus([], "empty.jsonl"), write_corpus([{"_id": "a", "text": "b"}, {"_id": "a"}], "broken.jsonl")
    before = names(tmp_path)
    for corpora in ([tmp_path / "missing.jsonl"], [empty], [broken], [corpus, empty], [corpus, tmp_path / "missing.jsonl"]):
        with pytest.raises(CorpusError, match=corpora[-1].name):
            build_index(corpora, tmp_path / "new" / "parent" / "idx", model=encoder)
    assert names(tmp_path) == before


@pytest.mark.parametrize("corpora", [[], "corpus.jsonl"])
def test_corpora_must_be_a_list(tmp_path: Path, corpora: list[str], encoder: WordEncoder) -> None:
    with pytest.raises(SettingsError, match="expected a list"):
        build_index(corpora, tmp_path / "idx", model=encoder)


def test_a_missing_second_corpus_is_reported_before_anything_is_encoded(tmp_path: Path, corpus: Path, encoder: WordEncoder) -> None:
    with pytest.raises(CorpusError, match=r"missing\.jsonl"):
        build_index([corpus, tmp_path / "missing.jsonl"], tmp_path / "idx", model=encoder)
    assert encoder.documents == 0


def test_an_output_in_use_is_left_alone(tmp_path: Path, corpus: Path, index_folder: Path, encoder: WordEncoder) -> None:
    before = contents(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("all of it")
    with pytest.raises(IndexFolderError, match="already holds an index.*--overwrite"):
        build_index([corpus], index_folder, model=encoder)
    for overwrite in (False, True):
        with pytest.raises(IndexFolderError, match="something else than an index"):
            build_index([corpus], other, model=encoder, overwrite=overwrite)
        with pytest.raises(IndexFolderError, match="a file, expected a folder"):
            build_index([corpus], corpus, model=encoder, overwrite=overwrite)
    assert contents(tmp_path) == before | {"other/thesis.txt": b"all of it"}


def test_an_empty_folder_and_a_link_to_one_are_filled(tmp_path: Path, corpus: Path, encoder: WordEncoder) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    build_index([corpus], tmp_path / "link", model=encoder)
    assert len(open_index(tmp_path / "real")) == 5


def test_overwriting_replaces_the_index_and_nothing_else(tmp_path: Path, index_folder: Path, write_corpus: Callable[..., Path], encoder: WordEncoder) -> None:
    (index_folder / "notes.txt").write_text("mine")
    old = open_index(index_folder, model=encoder)
    build_index([write_corpus([{"_id": "new", "text": "new"}], "new.jsonl")], index_folder, model=encoder, overwrite=True)
    assert [hit.id for hit in open_index(index_folder, model=encoder).search(["bread"])[0]] == ["new"]
    assert names(index_folder / "segments") == {"000002"}
    assert (index_folder / "notes.txt").read_text() == "mine"
    assert old.search(["bread"])[0][0].text.startswith("bread"), "a reader of the old index goes on"
    assert ".idx.building" not in names(tmp_path)


def test_a_failed_overwrite_keeps_the_old_index(index_folder: Path, write_corpus: Callable[..., Path], encoder: WordEncoder) -> None:
    before = contents(index_folder)
    broken = write_corpus([{"_id": "a", "text": "b"}, {"_id": "a", "text": "b"}], "broken.jsonl")
    with pytest.raises(CorpusError, match="duplicate"):
        build_index([broken], index_folder, model=encoder, overwrite=True)
    assert contents(index_folder) == before


def test_an_index_that_appeared_meanwhile_is_not_replaced(
    tmp_path: Path, corpus: Path, write_corpus: Callable[..., Path], encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_corpus([{"_id": "other", "text": "bread"}], "other.jsonl")

    def load(name: str) -> WordEncoder:
        build_index([other], tmp_path / "idx", model=encoder)
        return encoder

    monkeypatch.setitem(vars(llm2comp), "load", load)
    with pytest.raises(IndexFolderError, match="already holds an index"):
        build_index([corpus], tmp_path / "idx", model="slow/model")
    assert len(open_index(tmp_path / "idx")) == 1
    assert ".idx.building" not in names(tmp_path)


@pytest.mark.parametrize(("vectors", "words"), [(np.zeros((5, 31)), r"\(5, 31\), expected \(5, 32\)"), (np.full((5, 32), np.inf), "not finite")])
def test_wrong_vectors_are_refused(
    tmp_path: Path, corpus: Path, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch, vectors: np.ndarray, words: str
) -> None:
    monkeypatch.setattr(encoder, "encode_document", lambda texts, **_: vectors)
    with pytest.raises(IndexFolderError, match=words):
        build_index([corpus], tmp_path / "idx", model=encoder)
    assert names(tmp_path) == {"corpus.jsonl"}


def test_without_faiss_the_error_has_the_command(tmp_path: Path, corpus: Path, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(LLM2CompError, match=r'pip install "llm2comp\[cpu\]"'):
        build_index([corpus], tmp_path / "idx", model=encoder)


def start_slow_build(corpus: Path, output: Path) -> "subprocess.Popen[str]":
    path = [str(ROOT), str(ROOT / "indexes")]
    script = SLOW_BUILD.format(path=path, corpus=str(corpus), output=str(output))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"  # it is inside the build now
    return process


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_nothing(tmp_path: Path, corpus: Path, stop: signal.Signals) -> None:
    with start_slow_build(corpus, tmp_path / "idx") as process:
        assert ".idx.building" in names(tmp_path)
        process.send_signal(stop)
        process.communicate(timeout=30)
    assert process.returncode != 0
    assert names(tmp_path) == {"corpus.jsonl"}


def test_a_killed_build_shows_no_index_and_the_next_one_cleans_up(tmp_path: Path, corpus: Path, encoder: WordEncoder) -> None:
    with start_slow_build(corpus, tmp_path / "idx") as process:
        process.kill()
    assert not (tmp_path / "idx").exists()
    build_index([corpus], tmp_path / "idx", model=encoder)
    assert names(tmp_path) == {"corpus.jsonl", "idx"}
    assert len(open_index(tmp_path / "idx")) == 5


def test_a_killed_overwrite_keeps_the_old_index(index_folder: Path, corpus: Path) -> None:
    before = contents(index_folder)
    with start_slow_build(corpus, index_folder) as process:
        process.kill()
    assert contents(index_folder) == before


def test_a_second_builder_is_refused_while_the_first_works(tmp_path: Path, corpus: Path, encoder: WordEncoder) -> None:
    with start_slow_build(corpus, tmp_path / "idx") as process:
        with pytest.raises(IndexFolderError, match="another process is building"):
            build_index([corpus], tmp_path / "idx", model=encoder)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert len(open_index(tmp_path / "idx")) == 5


FULL_DEVICE = """
import resource, sys
sys.path[:0] = {path!r}
from llm2comp.errors import IndexFolderError
from llm2comp_indexes import build_index
from tests.word_encoder import WordEncoder
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    build_index([{corpus!r}], {output!r}, model=WordEncoder({dimension}))
except IndexFolderError as error:
    print(error)
"""


@pytest.mark.parametrize(("name", "dimension"), [("documents.jsonl", 2), ("vectors.faiss", 64), ("manifest.json", 2)])
def test_a_full_device_leaves_nothing(tmp_path: Path, corpus: Path, name: str, dimension: int) -> None:
    build_index([corpus], tmp_path / "idx", model=WordEncoder(dimension))
    [file] = (tmp_path / "idx").rglob(name)
    limit = file.stat().st_size - 1  # the last byte of this file is one too many
    shutil.rmtree(tmp_path / "idx")
    script = FULL_DEVICE.format(path=[str(ROOT), str(ROOT / "indexes")], corpus=str(corpus), output=str(tmp_path / "idx"), limit=limit, dimension=dimension)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "no space left for the index" in done.stdout
    assert names(tmp_path) == {"corpus.jsonl"}
