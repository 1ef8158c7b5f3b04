"""Merging: one segment without deleted rows, nothing encoded; optionally another type, targets, a BM25 index."""

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp.errors import SettingsError
from llm2comp_indexes import (
    IndexOptions,
    SearchOptions,
    Targets,
    VectorFiles,
    add_documents,
    build_from_vectors,
    build_index,
    delete_documents,
    merge_index,
    open_index,
    verify_index,
)
from llm2comp_indexes.format.manifest import read_manifest
from llm2comp_indexes.format.segment import segment_folder
from llm2comp_indexes.tuning.queries import QueryKind
from tests.indexes.clustered import draw_vectors
from tests.indexes.live import ChunkingEncoder, RecordingEncoder, answers, build_of_vectors, identifiers, make_documents
from tests.indexes.processes import run_python

Write = Callable[..., Path]
GONE = {f"d{row}" for row in (0, 5, 33, 44)}


@pytest.fixture
def encoder() -> RecordingEncoder:
    return RecordingEncoder()


@pytest.fixture
def live(tmp_path: Path, write_corpus: Write, encoder: RecordingEncoder) -> Callable[..., Path]:
    """An index of three segments with additions, changes and deletions."""

    def make(**options: Any) -> Path:
        folder = tmp_path / "idx"
        build_index([write_corpus(make_documents(range(30)))], folder, model=encoder, options=IndexOptions(**options))
        add_documents(
            folder, [write_corpus([*make_documents([7, 8], seed=1), *make_documents(range(30, 40))])], model=encoder
        )
        add_documents(
            folder, [write_corpus([*make_documents([8, 31], seed=2), *make_documents(range(40, 50))])], model=encoder
        )
        delete_documents(folder, GONE)
        assert len(read_manifest(folder).segments) == 3
        encoder.texts.clear()
        return folder

    return make


@pytest.fixture
def rebuilt(tmp_path: Path, write_corpus: Write) -> Callable[..., Path]:
    """An index built from the documents that are left in the other, in its order."""

    def make(**options: Any) -> Path:
        rows = [*make_documents([row for row in range(30) if row not in (7, 8)]), *make_documents([7], seed=1)]
        rows += [
            *make_documents([row for row in range(30, 40) if row != 31]),
            *make_documents([8, 31], seed=2),
            *make_documents(range(40, 50)),
        ]
        corpus = write_corpus([document for document in rows if document["_id"] not in GONE], "rebuilt.jsonl")
        build_index([corpus], tmp_path / "rebuilt", model=RecordingEncoder(), options=IndexOptions(**options))
        return tmp_path / "rebuilt"

    return make


def files(folder: Path) -> dict[str, bytes]:
    """Contents of the files of the only segment, except measurements."""
    [segment] = read_manifest(folder).segments
    return {
        name: (segment_folder(folder, segment) / name).read_bytes()
        for name in segment.files
        if name not in ("report.json", "queries.npy")
    }


@pytest.mark.parametrize("store", ["float32", "float16", "int8"])
@pytest.mark.parametrize("kind", ["flat", "HNSW8", "IVF4,SQ8"])
def test_a_merged_index_is_the_one_that_would_be_built_of_what_lives(
    live: Callable[..., Path], rebuilt: Callable[..., Path], encoder: RecordingEncoder, kind: str, store: str
) -> None:
    folder = live(type=kind, store=store, hybrid=True)
    report = merge_index(folder)
    assert (report.segments, report.dropped) == (3, len(GONE) + 4)
    assert report.measured is not None
    assert encoder.texts == [], "nothing is encoded"
    assert files(folder) == files(rebuilt(type=kind, store=store, hybrid=True)), "byte for byte"
    manifest = verify_index(folder)
    assert (manifest.documents, manifest.rows, manifest.segments[0].deleted) == (46, 46, 0)
    assert [path.name for path in (folder / "segments").iterdir()] == [manifest.segments[0].name], (
        "the merged segments are gone"
    )


def test_an_index_of_chunks_is_merged_with_its_documents_whole(tmp_path: Path, write_corpus: Write) -> None:
    encoder, options = ChunkingEncoder(), IndexOptions(chunk_tokens=2, chunk_overlap=1)
    for number, text in enumerate(["one two three four", "one", "five six seven"]):
        corpus = write_corpus([{"_id": f"{number}{letter}", "text": text} for letter in "ab"])
        if number:
            add_documents(tmp_path / "idx", [corpus], model=encoder)
        else:
            build_index([corpus], tmp_path / "idx", model=encoder, options=options)
    before = answers(tmp_path / "idx", encoder)
    delete_documents(tmp_path / "idx", ["2a"])
    merge_index(tmp_path / "idx")
    assert answers(tmp_path / "idx", encoder) == [
        [hit for hit in hits if not hit[0].startswith("2a")] for hits in before
    ]
    assert verify_index(tmp_path / "idx").documents == 5
    encoder.texts.clear()
    assert add_documents(
        tmp_path / "idx", [write_corpus([{"_id": "0b", "text": "one two three four"}])], model=encoder
    )[:3] == (0, 0, 1)
    assert encoder.texts == []


def test_documents_are_known_as_unchanged_after_a_merge(
    live: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder
) -> None:
    folder = live()
    merge_index(folder)
    report = add_documents(
        folder,
        [write_corpus([*make_documents(range(10, 30)), *make_documents([8], seed=2), *make_documents([7], seed=2)])],
        model=encoder,
    )
    assert report[:3] == (0, 1, 21)
    assert len(encoder.texts) == 1


def test_type_targets_and_words_may_change(live: Callable[..., Path], encoder: RecordingEncoder) -> None:
    folder = live(type="flat")
    dense = answers(folder, encoder)
    for options in (
        IndexOptions("HNSW8", hybrid=True),
        IndexOptions("IVF2,SQ8", targets=Targets(recall=0.5, k=3)),
        IndexOptions("flat"),
    ):
        report = merge_index(folder, options=options)
        assert report.measured is not None
        assert report.measured.targets == options.targets
        manifest = verify_index(folder)
        assert manifest.options == options
        assert [segment.type for segment in manifest.segments] == [{"flat": "Flat"}.get(options.type, options.type)]
        assert answers(folder, encoder) == dense, "the type changes how answers are found, not which"
        if options.hybrid:
            assert answers(folder, encoder, mode="hybrid")[0][0][0] in {hit[0] for hit in dense[0]}
        else:
            with pytest.raises(SettingsError, match="holds no BM25 index"):
                answers(folder, encoder, mode="bm25")
    assert encoder.texts == []


def test_what_is_added_after_a_merge_is_as_the_merge_asked(
    live: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder
) -> None:
    folder = live()
    merge_index(folder, options=IndexOptions(hybrid=True))
    add_documents(folder, [write_corpus([{"_id": "new", "text": "zebra"}])], model=encoder)
    [hits] = open_index(folder, model=encoder).search(["zebra"], options=SearchOptions(mode="bm25"))
    assert [hit.id for hit in hits] == ["new"]


@pytest.mark.parametrize(
    "options",
    [
        IndexOptions(store="int8"),
        IndexOptions(chunk_tokens=5),
        IndexOptions(chunk_tokens=5, chunk_overlap=1),
        IndexOptions("IVF5000,SQ8"),
    ],
)
def test_what_a_merge_cannot_change_is_refused_before_anything_is_written(
    live: Callable[..., Path], options: IndexOptions
) -> None:
    folder = live()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    words = "5,000 lists for 46 rows" if options.type != "auto" else "a merge cannot change (store|chunk_tokens)"
    with pytest.raises(SettingsError, match=words):
        merge_index(folder, options=options)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "LOCK.pid"} == {
        path: content for path, content in before.items() if path.name != "LOCK.pid"
    }


def test_a_merged_index_is_left_as_it_is(live: Callable[..., Path]) -> None:
    folder = live()
    merge_index(folder)
    before = (folder / "manifest.json").read_bytes()
    assert merge_index(folder)[:2] == (1, 0)
    assert merge_index(folder).measured is None
    assert (folder / "manifest.json").read_bytes() == before


def test_one_segment_with_deletions_is_merged(live: Callable[..., Path], encoder: RecordingEncoder) -> None:
    folder = live()
    merge_index(folder)
    delete_documents(folder, ["d10", "d11"])
    assert merge_index(folder)[:2] == (1, 2)
    assert not {"d10", "d11"} & identifiers(folder, encoder)


def test_a_small_addition_gets_the_type_that_was_asked_for_when_it_is_all_that_is_left(
    live: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder
) -> None:
    folder = live(type="HNSW8")
    delete_documents(folder, [f"d{row}" for row in range(50)])
    add_documents(folder, [write_corpus(make_documents(range(20)))], model=encoder)
    assert [segment.type for segment in read_manifest(folder).segments] == ["Flat"]
    merge_index(folder)
    assert [segment.type for segment in verify_index(folder).segments] == ["HNSW8"]


def test_an_empty_index_keeps_what_a_merge_asks(
    live: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder
) -> None:
    folder = live()
    delete_documents(folder, [f"d{row}" for row in range(50)])
    assert merge_index(folder)[:2] == (0, 0)
    report = merge_index(folder, options=IndexOptions("hnsw", hybrid=True))
    assert (report.segments, report.dropped, report.measured) == (0, 0, None)
    assert verify_index(folder).options == IndexOptions("hnsw", hybrid=True)
    add_documents(folder, [write_corpus(make_documents(range(3)))], model=encoder)
    assert answers(folder, encoder, mode="bm25")[0]


def test_an_index_that_is_open_goes_on_with_what_it_opened(
    live: Callable[..., Path], encoder: RecordingEncoder
) -> None:
    folder = live(hybrid=True)
    index = open_index(folder, model=encoder)
    merge_index(folder)
    moved = folder.rename(folder.with_name("elsewhere"))
    after = {mode: answers(index, encoder, mode=mode) for mode in ("dense", "bm25", "hybrid")}
    filtered = answers(index, encoder, where="year > 2004")
    assert after["dense"] == answers(moved, encoder)
    assert filtered == answers(moved, encoder, where="year > 2004")
    assert all(after.values())


def test_queries_that_were_held_out_are_moved_once_they_are_in_the_index(tmp_path: Path) -> None:
    vectors = draw_vectors(10_000, 8)
    np.save(tmp_path / "vectors.npy", vectors)
    (tmp_path / "ids.txt").write_text("".join(f"v{row}\n" for row in range(10_000)))
    before = build_from_vectors(
        VectorFiles([tmp_path / "vectors.npy"], tmp_path / "ids.txt"), tmp_path / "idx", options=IndexOptions("flat")
    ).measured
    assert "held out of the rows" in before.query_source
    assert [segment.rows for segment in read_manifest(tmp_path / "idx").segments] == [9_700, 300]
    merged = merge_index(tmp_path / "idx").measured
    assert merged is not None
    assert "moved by noise" in merged.query_source
    index = open_index(tmp_path / "idx")
    queries = index.segments[0].read_queries()
    assert queries is not None
    assert index.search_vectors(queries, 1).scores.max() < 0.999, "a query is a row of the index"


def test_queries_that_were_given_stay(tmp_path: Path) -> None:
    folder = build_of_vectors(tmp_path, draw_vectors(300, 8), draw_vectors(40, 8, seed=1), IndexOptions("flat"))
    delete_documents(folder, ["v3"])
    before = open_index(folder).segments[0]
    queries, report = before.read_queries(), before.report
    merged = merge_index(folder).measured
    assert merged is not None
    assert report is not None
    assert merged.query_source == report.query_source
    after = open_index(folder).segments[0].read_queries()
    assert after is not None
    np.testing.assert_array_equal(after, queries)


def test_an_index_without_queries_is_measured_with_its_rows(
    live: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = live()
    monkeypatch.setattr("llm2comp_indexes.search.segment.OpenSegment.read_queries", lambda self: None)
    measured = merge_index(folder).measured
    assert measured is not None
    assert measured.query_kind is QueryKind.MOVED_ROWS


FEW_FILES = """
import resource
from llm2comp_indexes import SearchOptions, add_documents, delete_documents, merge_index, open_index
from llm2comp_indexes.change import small_segments
from tests.word_encoder import WordEncoder
small_segments._MERGED_AT_ONCE = 1000
encoder = WordEncoder()
index = open_index({folder!r}, model=encoder)  # everything is imported now
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
for mode in ("dense", "bm25", "hybrid"):
    assert open_index({folder!r}, model=encoder).search(["bread"], options=SearchOptions(mode=mode, where="year > 0"))
assert add_documents({folder!r}, [{corpus!r}], model=encoder).added == 1
assert delete_documents({folder!r}, ["d1"]).deleted == 1
print(merge_index({folder!r}).segments)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits the open files of a process")
def test_many_small_additions_need_few_open_files(
    live: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm2comp_indexes.change.small_segments._MERGED_AT_ONCE", 1000)  # all of them stay
    folder = live(hybrid=True)
    for row in range(100, 112):
        add_documents(folder, [write_corpus(make_documents([row]))], model=encoder)
    corpus = write_corpus(make_documents([999]))
    script = FEW_FILES.format(folder=str(folder), corpus=str(corpus))
    assert run_python("-c", script, timeout=120).strip() == "16"
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64
