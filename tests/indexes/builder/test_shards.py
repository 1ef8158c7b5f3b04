"""Shards: joined, they equal an unsharded build; shards that do not fit or are altered are refused by name."""

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp.errors import CorpusError, IndexFolderError, LLM2CompError, SettingsError
from llm2comp_indexes import (
    IndexOptions,
    Part,
    VectorFiles,
    build_from_vectors,
    build_index,
    encode_shard,
    open_index,
    parse_part,
    verify_index,
)
from llm2comp_indexes.builder.shard_file import find_shards, read_shard
from llm2comp_indexes.format.documents import DocumentReader
from tests.paths import ROOT
from tests.word_encoder import WordEncoder

ROWS = ("documents.jsonl", "documents.offsets", "documents.ids", "vectors.faiss", "metadata.arrow")


class WordTokenizer:
    """Splits at white space; enough of a fast tokenizer to make chunks."""

    is_fast = True

    def __call__(self, text: str, **_: Any) -> dict[str, list[tuple[int, int]]]:
        places, start = [], 0
        for word in text.split():
            start = text.index(word, start)
            places.append((start, start + len(word)))
            start += len(word)
        return {"offset_mapping": places}


class ChunkingEncoder(WordEncoder):
    tokenizer = WordTokenizer()


def rows(count: int, extra: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(0)
    return [
        {
            "_id": f"d{row}",
            "title": f"T{row}",
            "text": " ".join(draw.choices("abcdefgh", k=1 + row % (7 + extra))),
            "year": row,
        }
        for row in range(count)
    ]


def make_shards(corpus: Path, output: Path, shards: int, **settings: Any) -> list[Path]:
    settings.setdefault("model", WordEncoder())
    return [encode_shard([corpus], output, Part(shard, shards), **settings).folder for shard in range(1, shards + 1)]


def segment_files(index: Path) -> dict[str, bytes]:
    return {name: (index / "segments" / "000001" / name).read_bytes() for name in ROWS}


@pytest.mark.parametrize("shards", [1, 3, 7])
@pytest.mark.parametrize(
    "options",
    [IndexOptions(), IndexOptions(store="float16"), IndexOptions(store="int8", chunk_tokens=4, chunk_overlap=1)],
    ids=["plain", "half", "chunks"],
)
def test_joined_shards_are_the_unsharded_index(
    tmp_path: Path, write_corpus: Callable[..., Path], shards: int, options: IndexOptions
) -> None:
    corpus, encoder = write_corpus(rows(5)), ChunkingEncoder()  # with seven shards, two are empty
    make_shards(corpus, tmp_path / "shards", shards, model=encoder, options=options)
    joined = build_from_vectors(VectorFiles([tmp_path / "shards"]), tmp_path / "joined", model=encoder)
    whole = build_index([corpus], tmp_path / "whole", model=encoder, options=options)
    assert segment_files(tmp_path / "joined") == segment_files(tmp_path / "whole")
    assert (joined.documents, joined.measured.query_source) == (whole.documents, whole.measured.query_source)
    verify_index(tmp_path / "joined")
    with (
        open_index(tmp_path / "joined", model=encoder) as index,
        open_index(tmp_path / "whole", model=encoder) as other,
    ):
        assert index.manifest.fingerprint == "words-32"
        assert (index.manifest.options, index.manifest.dimension) == (other.manifest.options, other.manifest.dimension)
        assert index.search(["a b", "c"], 4) == other.search(["a b", "c"], 4)
        with pytest.raises(IndexFolderError, match="fingerprint"):
            open_index(tmp_path / "joined", model=WordEncoder(fingerprint="other"))


def test_order_is_kept_over_several_blocks(tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    corpus = write_corpus(rows(5000))
    make_shards(corpus, tmp_path / "shards", 2)
    build_from_vectors(VectorFiles([tmp_path / "shards"]), tmp_path / "joined", model=WordEncoder())
    with open_index(tmp_path / "joined") as index:
        assert [index.segments[0].documents[row].id for row in range(5000)] == [f"d{row}" for row in range(5000)]
        vectors = index.segments[0].storage.read(np.array([0, 1, 4097, 4999]))
    expected = [f"{row['title']}\n{row['text']}" for row in (rows(5000)[place] for place in (0, 1, 4097, 4999))]
    np.testing.assert_array_equal(vectors, WordEncoder().encode_document(expected))


def test_a_shard_holds_every_nth_document(tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    encoder = WordEncoder()
    report = encode_shard([write_corpus(rows(11))], tmp_path, Part(2, 4), model=encoder)
    assert report.folder == tmp_path / "shard-2-of-4"
    assert (report.documents, report.corpus_documents, encoder.documents) == (3, 11, 3)
    reader = DocumentReader(report.folder / "rows" / "documents.jsonl", report.folder / "rows" / "documents.offsets", 3)
    assert [reader[row].id for row in range(3)] == ["d1", "d5", "d9"]
    reader.close()
    assert {path.name for path in report.folder.iterdir()} == {"shard.json", "rows", "LOCK", "LOCK.pid"}
    assert {path.name for path in (report.folder / "rows").iterdir()} == set(ROWS)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "-1/3", "1", "1/2/3", "a/b", "", "1.0/2", "١/٣", "1/99999999"])
def test_parts_that_cannot_be(text: str) -> None:
    with pytest.raises(SettingsError, match="I/N"):
        parse_part(text)


def test_parts() -> None:
    assert parse_part("2/3") == Part(2, 3)
    for total in range(9):
        assert sum(Part(shard, 4).documents_of(total) for shard in range(1, 5)) == total


def test_shards_that_do_not_fit_together_are_named(tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    corpus, other = write_corpus(rows(9)), write_corpus([*rows(8), {"_id": "d8", "text": "changed"}], "other.jsonl")
    encoder = ChunkingEncoder()
    first, second, third = make_shards(corpus, tmp_path / "good", 3, model=encoder)
    bad: dict[str, tuple[Path, dict[str, Any]]] = {
        "model": (corpus, {"model": ChunkingEncoder(fingerprint="other")}),
        "dimension": (
            corpus,
            {
                "model": type(
                    "Small",
                    (ChunkingEncoder,),
                    {"fingerprint": property(lambda self: "words-32", lambda self, value: None)},
                )(8)
            },
        ),
        "store": (corpus, {"options": IndexOptions(store="float16")}),
        "chunking": (corpus, {"options": IndexOptions(chunk_tokens=5)}),
        "corpus": (other, {}),
    }
    for what, (source, settings) in bad.items():
        report = encode_shard([source], tmp_path / what, Part(2, 3), **{"model": encoder, **settings})
        with pytest.raises(IndexFolderError, match=rf"{first} and {report.folder}: shards of another {what} "):
            build_from_vectors(VectorFiles([first, report.folder, third]), tmp_path / "idx", model=encoder)
    for paths, words in {
        (first,): r"shards 2, 3 of 3 are missing; make them with llm2comp encode CORPUS --shard 2/3",
        (first, third): "shard 2 of 3 is missing",
        (first, second, third, second): f"{second} and {second}: both are shard 2 of 3",
        (tmp_path / "nothing",): "no such folder",
        (corpus.parent / "good", tmp_path): "holds no shard",
    }.items():
        with pytest.raises(IndexFolderError, match=words):
            build_from_vectors(VectorFiles(paths), tmp_path / "idx", model=encoder)
    halves = make_shards(corpus, tmp_path / "halves", 2, model=encoder)
    with pytest.raises(IndexFolderError, match=r"another split \(in 2 and in 3\)"):
        find_shards([*halves, first])
    assert not (tmp_path / "idx").exists()


def test_what_a_run_on_a_cluster_left_is_named(tmp_path: Path) -> None:
    (tmp_path / "killed" / ".parts").mkdir(parents=True)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "vectors.json").write_text("{}")
    for name, words in {"killed": "an unfinished encoding on a cluster; run its", "tables": "Parquet files of"}.items():
        with pytest.raises(IndexFolderError, match=words):
            build_from_vectors(VectorFiles([tmp_path / name]), tmp_path / "idx", model=WordEncoder())


def test_settings_beside_shards(tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    corpus, encoder = write_corpus(rows(9)), WordEncoder()
    make_shards(corpus, tmp_path / "shards", 2, options=IndexOptions(store="float16"))
    shards = VectorFiles([tmp_path / "shards"])
    wrong: list[tuple[VectorFiles, dict[str, Any], str]] = [
        (VectorFiles([tmp_path / "shards"], ids=corpus), {}, "leave them out"),
        (shards, {"corpora": [corpus]}, "leave them out"),
        (shards, {"options": IndexOptions(chunk_tokens=9)}, r"\(9, 0\), those of the shards \(None, 0\)"),
        (shards, {"model": WordEncoder(fingerprint="other")}, "fingerprint is other-32, that of the shards words-32"),
    ]
    for files, settings, words in wrong:
        with pytest.raises(LLM2CompError, match=words):
            build_from_vectors(files, tmp_path / "idx", **{"model": encoder, **settings})
    build_from_vectors(shards, tmp_path / "idx", model=encoder)
    with open_index(tmp_path / "idx") as index:
        assert index.manifest.options.store == "float16"  # no more than the shards hold
    build_from_vectors(shards, tmp_path / "small", model=encoder, options=IndexOptions(store="int8"))
    with open_index(tmp_path / "small") as index:
        assert index.manifest.options.store == "int8"


def test_without_the_model_other_queries_are_used_and_said(
    tmp_path: Path, write_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(name: Any = None) -> Any:
        raise LLM2CompError("no such model")

    make_shards(write_corpus(rows(50)), tmp_path / "shards", 2)
    monkeypatch.setattr("llm2comp.load", fail, raising=False)
    report = build_from_vectors(VectorFiles([tmp_path / "shards"]), tmp_path / "idx")
    assert "noise" in report.measured.query_source
    assert "cannot be loaded: no such model" in caplog.text
    with open_index(tmp_path / "idx", model=WordEncoder()) as index:
        assert len(index.search(["a"], 3)[0]) == 3
    with pytest.raises(LLM2CompError, match="no such model"):
        build_from_vectors(VectorFiles([tmp_path / "shards"]), tmp_path / "other", model="named")


def test_a_finished_shard_is_left_as_it_is(tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    corpus, encoder = write_corpus(rows(9)), WordEncoder()
    [folder] = make_shards(corpus, tmp_path / "s", 1, model=encoder)
    before = (folder / "shard.json").read_bytes()
    assert encode_shard([corpus], tmp_path / "s", model=encoder).encode_seconds == 0
    assert encoder.documents == 9
    other = write_corpus(rows(10), "other.jsonl")
    foreign: list[tuple[Path, dict[str, Any]]] = [
        (other, {}),
        (corpus, {"model": WordEncoder(fingerprint="x")}),
        (corpus, {"options": IndexOptions("flat", "int8")}),
    ]
    for source, settings in foreign:
        with pytest.raises(IndexFolderError, match="already holds this shard of another"):
            encode_shard([source], tmp_path / "s", **{"model": encoder, **settings})
    assert (folder / "shard.json").read_bytes() == before
    (folder / "notes.txt").write_text("mine")
    assert encode_shard([other], tmp_path / "s", model=encoder, overwrite=True).documents == 10
    assert read_shard(folder).documents == 10
    assert (folder / "notes.txt").read_text() == "mine"


def test_bad_corpora_and_folders_in_use_leave_nothing(tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    broken = write_corpus([{"_id": "a", "text": "b"}, {"_id": "a"}], "broken.jsonl")
    with pytest.raises(CorpusError, match=r"broken\.jsonl"):
        encode_shard([broken], tmp_path / "new" / "deep", model=WordEncoder())
    assert not (tmp_path / "new").exists()
    used = tmp_path / "shard-1-of-1"
    used.mkdir()
    (used / "thesis.txt").write_text("all of it")
    with pytest.raises(IndexFolderError, match="something other than a shard"):
        encode_shard([write_corpus(rows(3))], tmp_path, model=WordEncoder())
    assert [path.name for path in used.iterdir()] == ["thesis.txt"]


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes shard.json and updates its checksum, as an attacker would."""
    content = json.loads((folder / "shard.json").read_text())
    change(content)
    content.pop("checksum", None)
    content["checksum"] = hashlib.sha256(
        json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()
    (folder / "shard.json").write_text(json.dumps(content))


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "absolute file": lambda m: m["files"].update({"/etc/passwd": {"bytes": 1, "sha256": ""}}),
    "parent file": lambda m: m["files"].update({"../../secret": m["files"]["vectors.faiss"]}),
    "other file": lambda m: m["files"].update({"index.faiss": m["files"]["vectors.faiss"]}),
    "fewer files": lambda m: m["files"].pop("vectors.faiss"),
    "files as list": lambda m: m.update(files=[]),
    "record as text": lambda m: m["files"].update({"vectors.faiss": "x"}),
    "huge file": lambda m: m["files"]["vectors.faiss"].update(bytes=2**61),
    "other size": lambda m: m["files"]["documents.ids"].update(bytes=12),
    "huge count": lambda m: (m.update(rows=10**9, documents=10**9), m["corpus"].update(documents=10**9)),
    "more rows": lambda m: m.update(rows=4),
    "fewer documents": lambda m: m.update(documents=2),
    "count as text": lambda m: m.update(rows="5"),
    "count as truth": lambda m: m.update(documents=True),
    "negative": lambda m: m.update(rows=-1, documents=-1),
    "shard 0": lambda m: m.update(shard=0),
    "shard 9 of 3": lambda m: m.update(shard=9),
    "huge split": lambda m: m.update(shards=2**60),
    "dimension": lambda m: m.update(dimension=64),
    "huge dimension": lambda m: m.update(dimension=2**40),
    "store": lambda m: m.update(store="float8"),
    "chunking": lambda m: m.update(chunk_tokens=0),
    "chunks as text": lambda m: m.update(chunk_tokens="5"),
    "no fingerprint": lambda m: m["model"].update(fingerprint=""),
    "model as list": lambda m: m.update(model=[]),
    "name as list": lambda m: m["model"].update(name=["pickle"]),
    "corpus digest": lambda m: m["corpus"].update(sha256="x"),
    "no format": lambda m: m.pop("format"),
}  # fmt: skip


@pytest.fixture
def shards(tmp_path: Path, write_corpus: Callable[..., Path]) -> list[Path]:
    return make_shards(write_corpus(rows(9)), tmp_path / "shards", 3)


@pytest.mark.parametrize("change", FORGERIES.values(), ids=FORGERIES.keys())
def test_crafted_manifests_are_refused_before_any_file_is_read(
    shards: list[Path], change: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    forge(shards[1], change)
    monkeypatch.setattr(
        "llm2comp_indexes.builder.shard_file.check_size",
        lambda path, record: None if shards[1] not in path.parents else pytest.fail(f"looked at {path}"),
    )
    with pytest.raises(IndexFolderError, match=r"shard-2-of-3/shard\.json"):
        find_shards([shards[0].parent])


@pytest.mark.parametrize(
    "content",
    ["", "[]", "null", "{}", '{"format": 1}', "{" * 100_000, '{"format": ' + "9" * 5000 + "}", "\x00", " " * (1 << 21)],
    ids=range(9),
)
def test_manifests_that_are_none_are_refused(shards: list[Path], content: str) -> None:
    (shards[1] / "shard.json").write_text(content)
    with pytest.raises(IndexFolderError, match=r"shard-2-of-3/shard\.json"):
        find_shards([shards[0].parent])


def test_a_newer_format_is_refused_in_words(shards: list[Path]) -> None:
    forge(shards[0], lambda content: content.update(format=2))
    with pytest.raises(
        IndexFolderError, match="shard manifest of format 2, this llm2comp reads up to 1: pip install --upgrade"
    ):
        read_shard(shards[0])


@pytest.mark.parametrize("name", ["shard.json", "rows", "rows/vectors.faiss", "rows/documents.jsonl", "."])
def test_links_are_refused(tmp_path: Path, shards: list[Path], name: str) -> None:
    path = shards[1] / name
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IndexFolderError, match=path.name):
        find_shards([shards[0].parent])


@pytest.mark.parametrize("name", [f"rows/{name}" for name in ROWS] + ["shard.json"])
def test_flipped_and_cut_bytes_are_found_before_anything_is_built(
    tmp_path: Path, shards: list[Path], name: str
) -> None:
    path = shards[2] / name
    good = path.read_bytes()
    for position in (0, len(good) // 2, len(good) - 1):
        for bad in (good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :], good[:position]):
            path.write_bytes(bad)
            with pytest.raises(IndexFolderError, match=path.name):
                build_from_vectors(VectorFiles([shards[0].parent]), tmp_path / "idx", model=WordEncoder())
    assert not (tmp_path / "idx").exists()


def test_crafted_rows_that_repeat_an_id_are_refused(tmp_path: Path, shards: list[Path]) -> None:
    """The same rows under two shard numbers: every checksum is valid."""
    shutil.rmtree(shards[1] / "rows")
    shutil.copytree(shards[0] / "rows", shards[1] / "rows")
    files = json.loads((shards[0] / "shard.json").read_text())["files"]
    forge(shards[1], lambda content: content.update(files=files))
    with pytest.raises(IndexFolderError, match='the document "d0" is in another shard too'):
        build_from_vectors(VectorFiles([shards[0].parent]), tmp_path / "idx", model=WordEncoder())
    assert not (tmp_path / "idx" / "manifest.json").exists()


SLOW = """
import sys, time
sys.path[:0] = {path!r}
from llm2comp_indexes import Part, encode_shard
from llm2comp_indexes.builder import blocks as row_blocks
from tests.word_encoder import WordEncoder
row_blocks.BLOCK = 4
class Slow(WordEncoder):
    def encode_document(self, inputs, /, *, show_progress_bar=False):
        print(self.documents, flush=True)
        time.sleep({pause})
        return super().encode_document(inputs)
encoder = Slow()
encode_shard([{corpus!r}], {output!r}, Part(1, 2), model=encoder)
print("encoded", encoder.documents)
"""


def start(corpus: Path, output: Path, pause: float) -> "subprocess.Popen[str]":
    script = SLOW.format(path=[str(ROOT), str(ROOT / "indexes")], corpus=str(corpus), output=str(output), pause=pause)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_shard_goes_on_and_equals_an_uninterrupted_one(
    tmp_path: Path, write_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(rows(200))
    with start(corpus, tmp_path / "s", 0.05) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "40\n":
            pass
        process.send_signal(signal.SIGKILL)
    folder = tmp_path / "s" / "shard-1-of-2"
    with pytest.raises(IndexFolderError, match="an unfinished shard; run its llm2comp encode command again"):
        find_shards([tmp_path / "s"])
    monkeypatch.setattr("llm2comp_indexes.builder.blocks.BLOCK", 4)
    encoder = WordEncoder()
    encode_shard([corpus], tmp_path / "s", Part(1, 2), model=encoder)
    assert encoder.documents <= 100 - 36, "finished blocks are not encoded again"
    [whole] = make_shards(corpus, tmp_path / "whole", 2)[:1]
    assert {name: (folder / "rows" / name).read_bytes() for name in ROWS} == {
        name: (whole / "rows" / name).read_bytes() for name in ROWS
    }
    assert {path.name for path in (folder / "rows").iterdir()} == set(ROWS)


def test_a_second_writer_is_refused_with_the_owners_pid(tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    corpus = write_corpus(rows(200))
    with start(corpus, tmp_path / "s", 0.2) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(IndexFolderError, match=f"being written by process {process.pid}"):
            encode_shard([corpus], tmp_path / "s", Part(1, 2), model=WordEncoder())
        assert encode_shard([corpus], tmp_path / "s", Part(2, 2), model=WordEncoder()).documents == 100
        process.kill()
