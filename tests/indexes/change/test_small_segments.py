"""Small segments are merged by the commit that adds one more: few are left, rows keep their order, nothing is lost."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm2comp.corpus.documents import Document
from llm2comp_indexes import IndexOptions, add_documents, build_index, delete_documents, open_index, verify_index
from llm2comp_indexes.change.small_segments import plan_merges
from llm2comp_indexes.change.vectors import create_empty_index, upsert_vectors
from llm2comp_indexes.format.manifest import read_manifest
from llm2comp_indexes.format.segment import Segment
from llm2comp_indexes.search.lookup import find_rows, read_vectors, select_rows
from tests.word_encoder import WORDS, WordEncoder


def segment(rows: int, *, deleted: int = 0, type: str = "Flat") -> Segment:
    return Segment("000001", rows, deleted, rows - deleted, type, {})


def simulate(sizes: list[int]) -> tuple[int, int, int]:
    """Most segments at any time, most rows that one addition rewrote, and all rows rewritten."""
    segments: list[Segment] = []
    most = longest = total = 0
    for size in sizes:
        runs = plan_merges(segments)
        rewritten = sum(part.rows for run in runs if len(run) > 1 for part in run)
        segments = [*(segment(sum(part.rows for part in run)) for run in runs), segment(size)]
        most, longest, total = max(most, len(segments)), max(longest, rewritten), total + rewritten
    return most, longest, total


def test_ten_thousand_additions_of_one_document() -> None:
    most, longest, total = simulate([1] * 10_001)
    assert most == 4 * 9 + 1  # nine of each size class, and the last one
    assert longest == 10_000
    assert total <= 4 * 10_000


def test_additions_of_any_sizes() -> None:
    draw = random.Random(0)
    for sizes in ([1, 9], [1] * 9 + [10], [draw.randint(1, 30) for _ in range(50)], [1, 10, 100, 1000]):
        repeated = sizes * (2000 // len(sizes))
        most, longest, total = simulate(repeated)
        large = sum(repeated) // 10_000
        assert most <= 4 * 9 + 1 + large
        assert longest < 100_000
        assert total <= 8 * sum(repeated)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1] * 9, [1] * 9),
        ([1] * 10, [10]),
        ([100, *[1] * 10], [100, 10]),
        ([*[10] * 9, *[1] * 10], [100]),  # the ten make the tenth of the next class
        ([1, 5000, *[1] * 9], [1, 5000, *[1] * 9]),
        ([*[1] * 9, 5000], [5009]),  # a small one before a large one counts with it
        ([20_000, *[1] * 10, 20_000, *[1] * 3], [20_000, 10, 20_000, 1, 1, 1]),
    ],
)
def test_neighbours_of_one_size_class_are_merged(sizes: list[int], expected: list[int]) -> None:
    assert [sum(part.rows for part in run) for run in plan_merges(list(map(segment, sizes)))] == expected


def test_segments_with_a_structure_stay() -> None:
    segments = [segment(100, type="HNSW32"), *[segment(1)] * 9]
    assert [len(run) for run in plan_merges(segments)] == [1] * 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_empty_index(tmp_path / "idx", fingerprint="words-32", options=IndexOptions(hybrid=True, store="float16"))
    return tmp_path / "idx"


def add(folder: Path, name: str, text: str) -> None:
    upsert_vectors(folder, [Document(name, "", text, {"name": name})], WordEncoder().encode_document([text]))


def test_small_additions_leave_few_segments_and_every_document(folder: Path) -> None:
    draw, kept = random.Random(0), {}
    for number in range(130):
        name, text = f"d{draw.randrange(60)}", " ".join(draw.choices(WORDS, k=5))
        kept.pop(name, None)
        kept[name] = text
        add(folder, name, text)
        if number % 20 == 19:
            delete_documents(folder, [gone := next(iter(kept))])
            del kept[gone]
        assert len(read_manifest(folder).segments) <= 2 * 9 + 1
    verify_index(folder)
    index = open_index(folder, model=WordEncoder())
    hits = [index.fetch(row, 0.0) for row in select_rows(index).tolist()]
    assert [(hit.id, hit.text) for hit in hits] == list(kept.items())  # in the order of their last additions
    assert all(hit.metadata == {"name": hit.id} for hit in hits)
    vectors = read_vectors(index, [row for [row] in find_rows(index, list(kept))])
    np.testing.assert_allclose(vectors, WordEncoder().encode_document(list(kept.values())), atol=1e-3)
    assert index.manifest.bytes < 130 * 2000  # replaced rows leave the files


def test_rows_of_a_segment_that_is_mostly_deleted_leave_the_files(folder: Path) -> None:
    texts = [f"bread {number}" for number in range(40)]
    documents = [Document(f"d{number}", "", text) for number, text in enumerate(texts)]
    upsert_vectors(folder, documents, WordEncoder().encode_document(texts))
    delete_documents(folder, [f"d{number}" for number in range(21)])
    assert [(one.rows, one.deleted) for one in read_manifest(folder).segments] == [(40, 21)]
    add(folder, "new", "moon")
    assert [(one.rows, one.deleted) for one in read_manifest(folder).segments] == [(19, 0), (1, 0)]
    assert len(open_index(folder)) == 20


def test_a_reader_keeps_its_commit_while_segments_are_merged(folder: Path) -> None:
    for number in range(10):
        add(folder, f"d{number}", f"bread {number}")
    with open_index(folder, model=WordEncoder()) as reader:
        add(folder, "new", "bread")
        assert [segment.rows for segment in read_manifest(folder).segments] == [10, 1]
        assert len(reader) == 10
        assert len(reader.search(["bread"], k=20)[0]) == 10


def test_additions_of_corpora_are_merged_too_with_their_measurements(tmp_path: Path) -> None:
    def document(number: int) -> Document:
        return Document(f"d{number}", "", f"bread {WORDS[number % len(WORDS)]}")

    folder, encoder = tmp_path / "idx", WordEncoder()
    build_index([document(0), document(1)], folder, model=encoder)
    for number in range(2, 12):
        add_documents(folder, [document(number)], model=encoder)
    merged, _ = read_manifest(folder).segments
    assert (merged.rows, merged.type) == (11, "Flat")
    assert {"report.json", "queries.npy"} <= set(merged.files)
    verify_index(folder)
    assert replace(open_index(folder).manifest, created_by={}).documents == 12
