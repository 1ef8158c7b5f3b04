"""Chunks that end at sentences: what an index keeps of them, encodes, shows, and how they survive changes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm2comp.corpus.documents import Document, Markup
from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes import (
    Hit,
    IndexOptions,
    Part,
    SearchOptions,
    VectorFiles,
    add_documents,
    build_from_vectors,
    build_index,
    encode_shard,
    merge_index,
    open_index,
)
from llm2comp_indexes.builder.chunks import make_splitter, make_text_of_row
from llm2comp_indexes.format.documents import document_line
from llm2comp_indexes.format.manifest import read_manifest
from tests.indexes.live import ChunkingEncoder, contents

GUIDE = """Before.

# Guide

One two three four. Five six seven eight.

## Install

Nine ten eleven twelve. Thirteen fourteen fifteen. Sixteen seventeen.

|a|b|
|-|-|
| one two | three four |
| five six | seven eight |
"""
OPTIONS = IndexOptions(type="flat", chunk_tokens=14, chunk_overlap=3)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "guide.md").write_text(GUIDE)
    (folder / "short.md").write_text("# Short\n\nA note.\n")
    return folder


@pytest.fixture
def index(corpus: Path, tmp_path: Path) -> Path:
    build_index([corpus], tmp_path / "idx", model=ChunkingEncoder(), options=OPTIONS)
    return tmp_path / "idx"


def hits_of(folder: Path, **options: Any) -> dict[str, Hit]:
    [hits] = open_index(folder, model=ChunkingEncoder()).search(["one"], 100, options=SearchOptions(**options))
    return {hit.id: hit for hit in hits}


def test_chunks_keep_their_headings_and_places(index: Path) -> None:
    hits = hits_of(index)
    assert not any(name.startswith("llm2comp_") for name in hits["notes/short.md"].metadata)
    chunks = [hits[f"notes/guide.md#{number}"] for number in range(1, len(hits))]
    assert [chunk.metadata.get("llm2comp_headings") for chunk in chunks] == [
        None,
        ["Guide"],
        *[["Guide", "Install"]] * 3,
    ]
    for chunk in chunks:
        repeated = chunk.metadata.get("llm2comp_repeated", 0)
        assert chunk.text[repeated:] == GUIDE[chunk.metadata["llm2comp_begin"] : chunk.metadata["llm2comp_end"]]
    assert chunks[-1].text == "|a|b|\n|-|-|\n| five six | seven eight |"
    assert chunks[2].text.endswith("Sixteen seventeen.")
    assert chunks[2].location == "Install"
    assert chunks[2].citation == "Guide, Install"
    assert hits["notes/short.md"].citation == "Short"
    assert chunks[2]._replace(title="").citation == "notes/guide.md, Guide > Install"


def test_title_and_headings_are_encoded_with_a_chunk() -> None:
    document = Document("d", "Guide", GUIDE, markup=Markup.MARKDOWN)
    encoder = ChunkingEncoder()
    for context, expected in ((True, "Guide\nInstall\n"), (False, "")):
        options = replace(OPTIONS, chunk_context=context, chunk_overlap=0)
        rows, text = make_splitter(options, encoder)(document), make_text_of_row(options, encoder)
        assert all(len(text(row).split()) <= 14 for row in rows)
        assert text(rows[-1]) == f"{expected}{rows[-1].text}"
        assert {row.title for row in rows} == {"Guide"}
    whole = Document("w", "Title", "one two")
    assert text(whole) == whole.content


def test_pages_are_kept_and_cited() -> None:
    text = "One two three four five six seven. " * 5
    document = Document("paper", "Paper", text, pages=(0, 60, 130))
    rows = make_splitter(IndexOptions(chunk_tokens=15), ChunkingEncoder())(document)
    pages = [(row.metadata["llm2comp_page"], row.metadata.get("llm2comp_last_page")) for row in rows]
    assert pages == [(1, 2), (2, 3), (3, None)]
    cited = [Hit(row.id, 0.0, row.title, row.text, row.metadata).citation for row in rows]
    assert cited == ["Paper, pp. 1-2", "Paper, pp. 2-3", "Paper, p. 3"]


def test_headings_and_pages_can_be_filtered_by(index: Path) -> None:
    assert set(hits_of(index, where='"Install" in llm2comp_headings')) == {f"notes/guide.md#{n}" for n in (3, 4, 5)}


def test_a_hit_gives_its_neighbours(index: Path) -> None:
    opened, hits = open_index(index, model=ChunkingEncoder()), hits_of(index)
    around = opened.surrounding(hits["notes/guide.md#2"])
    assert [hit.id for hit in around] == ["notes/guide.md#1", "notes/guide.md#2", "notes/guide.md#3"]
    assert around[1] is hits["notes/guide.md#2"]
    assert [hit.id for hit in opened.surrounding(hits["notes/guide.md#5"], 2)] == [
        f"notes/guide.md#{n}" for n in (3, 4, 5)
    ]
    assert opened.surrounding(hits["notes/short.md"], 3) == [hits["notes/short.md"]]
    with pytest.raises(SettingsError, match="chunks is -1"):
        opened.surrounding(hits["notes/short.md"], -1)


def test_equal_documents_are_unchanged_and_a_merge_is_the_build(index: Path, corpus: Path, tmp_path: Path) -> None:
    assert add_documents(index, [corpus], model=ChunkingEncoder())[:3] == (0, 0, 2)
    (corpus / "more.md").write_text(GUIDE.replace("Guide", "More"))
    assert add_documents(index, [corpus], model=ChunkingEncoder())[:3] == (1, 0, 2)
    merge_index(index)
    build_index([corpus], tmp_path / "again", model=ChunkingEncoder(), options=OPTIONS)
    names = ("documents.jsonl", "metadata.arrow", "vectors.faiss")
    merged, built = (
        {row for name in names[:1] for row in (folder / "segments" / segment / name).read_bytes().splitlines()}
        for folder, segment in ((index, read_manifest(index).segments[0].name), (tmp_path / "again", "000001"))
    )
    assert merged == built


def test_shards_are_cut_alike(corpus: Path, index: Path, tmp_path: Path) -> None:
    for part in (1, 2):
        encode_shard([corpus], tmp_path / "shards", Part(part, 2), model=ChunkingEncoder(), options=OPTIONS)
    build_from_vectors(VectorFiles([tmp_path / "shards"]), tmp_path / "joined", options=IndexOptions(type="flat"))
    for name in ("documents.jsonl", "vectors.faiss"):
        one, two = (folder / "segments" / "000001" / name for folder in (index, tmp_path / "joined"))
        assert one.read_bytes() == two.read_bytes()
    assert read_manifest(tmp_path / "joined").options.chunks == OPTIONS.chunks
    with pytest.raises(SettingsError, match="chunk_at and chunk_context are"):
        build_from_vectors(
            VectorFiles([tmp_path / "shards"]), tmp_path / "x", options=replace(OPTIONS, chunk_at="tokens")
        )
    with pytest.raises(IndexFolderError, match="another corpus, model, encoding, store or chunking"):
        encode_shard(
            [corpus],
            tmp_path / "shards",
            Part(1, 2),
            model=ChunkingEncoder(),
            options=replace(OPTIONS, chunk_context=False),
        )


def test_an_index_cut_at_tokens_goes_on_so_and_records_it_as_before(corpus: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, chunk_at="tokens")
    build_index([corpus], tmp_path / "idx", model=ChunkingEncoder(), options=options)
    written = json.loads((tmp_path / "idx" / "manifest.json").read_text())["options"]
    assert "chunk_at" not in written
    assert read_manifest(tmp_path / "idx").options == options
    (corpus / "more.md").write_text(GUIDE)
    add_documents(tmp_path / "idx", [corpus], model=ChunkingEncoder())
    assert all("llm2comp_begin" not in hit.metadata for hit in hits_of(tmp_path / "idx").values())
    with pytest.raises(SettingsError, match="a merge cannot change chunk_at"):
        merge_index(tmp_path / "idx", options=OPTIONS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chunk_at": "tokens"}, "chunk_at is tokens without chunk_tokens"),
        ({"chunk_context": False}, "chunk_context is False without chunk_tokens"),
        ({"chunk_tokens": 8, "chunk_at": "pages"}, "chunk_at is 'pages', expected one of sentences, tokens"),
        (
            {"chunk_tokens": 8, "chunk_at": "tokens", "chunk_context": False},
            "chunk_context is False with chunk_at tokens",
        ),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        IndexOptions(**options)


def test_what_had_to_be_cut_is_counted(write_corpus: Callable[..., Path], tmp_path: Path) -> None:
    class CharacterTokenizer:
        is_fast = True

        def __call__(self, text: str, **options: Any) -> dict[str, list[tuple[int, int]]]:
            return {"offset_mapping": [(place, place + 1) for place in range(len(text))]}

    encoder: Any = ChunkingEncoder()
    encoder.tokenizer = CharacterTokenizer()
    corpus = write_corpus([{"_id": "a", "text": "short words " + "x" * 50}, {"_id": "b", "text": "y" * 70}])
    report = build_index([corpus], tmp_path / "idx", model=encoder, options=IndexOptions(chunk_tokens=20))
    assert report.cut == 2


def test_a_chunk_holds_no_more_than_the_model_reads(caplog: pytest.LogCaptureFixture) -> None:
    encoder = ChunkingEncoder()
    encoder.max_seq_length = 6
    rows = make_splitter(OPTIONS, encoder)(Document("d", "", "One two three. Four five six. Seven eight nine."))
    assert [row.text for row in rows] == ["One two three. Four five six.", "Four five six. Seven eight nine."]
    assert "chunks have at most 6 tokens" in caplog.text


def test_documents_with_equal_rows_have_equal_lines() -> None:
    document = Document("d", "", GUIDE, markup=Markup.MARKDOWN)
    one, two = (make_splitter(OPTIONS, ChunkingEncoder())(document) for _ in range(2))
    assert list(map(document_line, one)) == list(map(document_line, two))


def test_a_killed_build_goes_on_with_the_same_chunks(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm2comp_indexes.builder.blocks.BLOCK", 2)

    class Failing(ChunkingEncoder):
        def encode_document(self, inputs: list[str], /, **options: Any) -> Any:
            if any("note" in text for text in inputs):
                raise KeyboardInterrupt
            return super().encode_document(inputs, **options)

    for number in range(3):
        (corpus / f"a{number}.md").write_text(GUIDE)
    with pytest.raises(KeyboardInterrupt):
        build_index([corpus], tmp_path / "killed", model=Failing(), options=OPTIONS)
    report = build_index([corpus], tmp_path / "killed", model=ChunkingEncoder(), options=OPTIONS)
    build_index([corpus], tmp_path / "whole", model=ChunkingEncoder(), options=OPTIONS)
    assert 0 < report.encoded < report.measured.rows
    killed, whole = (contents(tmp_path / name / "segments" / "000001") for name in ("killed", "whole"))
    assert all(killed[name] == whole[name] for name in ("documents.jsonl", "vectors.faiss", "metadata.arrow"))
