"""An index made anew of its own documents: with another model, other chunks, another type."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2comp.corpus.documents import Document
from llm2comp.errors import CorpusError, IndexFolderError, SettingsError
from llm2comp_indexes import (
    IndexOptions,
    add_documents,
    build_index,
    delete_documents,
    open_index,
    rebuild_index,
    sync_index,
    undo_index,
    verify_index,
)
from llm2comp_indexes.builder.chunks import make_splitter
from llm2comp_indexes.change import rebuild
from llm2comp_indexes.change.stored import join_chunks
from tests.indexes.live import ChunkingEncoder, RecordingEncoder, answers, build_of_vectors, identifiers, make_documents

Write = Callable[..., Path]
CHUNKS = IndexOptions(chunk_tokens=3, chunk_at="tokens")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    for row in range(6):
        (tmp_path / "docs" / f"f{row}.md").write_text(f"# Title {row}\n\none two three four bread {row}")
    return tmp_path / "docs"


@pytest.fixture
def folder(docs: Path, tmp_path: Path, write_corpus: Write) -> Path:
    corpus = write_corpus(make_documents(range(8)))
    build_index([docs, corpus], tmp_path / "idx", model=ChunkingEncoder(), options=IndexOptions(hybrid=True))
    delete_documents(tmp_path / "idx", ["d7", "docs/f5.md"])
    return tmp_path / "idx"


@pytest.mark.parametrize("gone", [False, True])
def test_another_model(folder: Path, docs: Path, tmp_path: Path, gone: bool) -> None:
    if gone:
        shutil.rmtree(docs)
    before = identifiers(folder, ChunkingEncoder())
    other = RecordingEncoder(48, "other")
    report = rebuild_index(folder, model=other)
    assert (report.documents, report.stored, report.encoded, report.dimension) == (12, 12 if gone else 7, 12, 48)
    assert identifiers(folder, other) == before
    assert open_index(folder, model=other).search(["Title 3"])[0][0].id == "docs/f3.md"
    with pytest.raises(IndexFolderError, match="dimension 48"):
        open_index(folder, model=ChunkingEncoder())
    verify_index(folder)
    undo_index(folder)
    assert identifiers(folder, ChunkingEncoder()) == before


@pytest.mark.parametrize("gone", [False, True])
def test_other_chunks_give_the_index_that_a_build_gives(
    folder: Path, docs: Path, tmp_path: Path, write_corpus: Write, gone: bool
) -> None:
    encoder = ChunkingEncoder()
    delete_documents(folder, [f"d{row}" for row in range(7)])
    (docs / "f5.md").unlink()
    build_index([docs], tmp_path / "built", model=encoder, options=CHUNKS)
    if gone:
        shutil.rmtree(docs)
    rebuild_index(folder, model=encoder, options=CHUNKS)
    assert answers(folder, encoder) == answers(tmp_path / "built", encoder)
    rebuild_index(folder, model=encoder, options=IndexOptions())
    assert {hit.text for hit in open_index(folder, model=encoder).search(["bread"], 20)[0]} == {
        f"one two three four bread {row}" for row in range(5)
    }


def test_what_was_rebuilt_goes_on_following_its_sources(folder: Path, docs: Path) -> None:
    encoder = ChunkingEncoder()
    rebuild_index(folder, model=encoder, options=CHUNKS)
    encoder.texts.clear()
    (docs / "f0.md").unlink()
    report = sync_index(folder, [docs], model=encoder)
    assert report[:5] == (1, 0, 0, 4, ("docs/f0.md",)), "f5, which was deleted from the index, is new"


def test_the_old_commit_answers_until_the_new_one_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = ChunkingEncoder()
    old = answers(folder, encoder)

    class Watching(RecordingEncoder):
        def encode_document(self, inputs: list[str], /, **options: Any) -> Any:
            assert answers(folder, encoder) == old
            return super().encode_document(inputs, **options)

    other = Watching(48, "other")
    rebuild_index(folder, model=other)
    assert other.texts


def test_a_stopped_rebuild_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm2comp_indexes.builder.blocks.BLOCK", 3)
    other = RecordingEncoder(48, "other")
    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "finish_segment", stop)
        with pytest.raises(KeyboardInterrupt):
            rebuild_index(folder, model=other)
    assert len(other.texts) == 12
    assert verify_index(folder).dimension == 32
    other.texts.clear()
    rebuild_index(folder, model=other)
    assert other.texts == []
    assert verify_index(folder).dimension == 48


def stop(*arguments: Any, **options: Any) -> None:
    raise KeyboardInterrupt


def test_other_settings_are_refused_by_add(folder: Path, write_corpus: Write) -> None:
    before = (folder / "manifest.json").read_bytes()
    corpus = write_corpus(make_documents([9]), "more.jsonl")
    for change in (add_documents, sync_index):
        with pytest.raises(IndexFolderError, match="built with|holds vectors of dimension 32"):
            change(folder, [corpus], model=RecordingEncoder(48, "other"))
    with pytest.raises(IndexFolderError, match=r"name it \(--model\)"):
        rebuild_index(folder, options=CHUNKS)
    with pytest.raises(SettingsError, match="type"):
        rebuild_index(folder, model=ChunkingEncoder(), options=IndexOptions(type="nonsense"))
    assert (folder / "manifest.json").read_bytes() == before


def test_an_empty_index(folder: Path) -> None:
    delete_documents(folder, identifiers(folder, ChunkingEncoder()))
    assert rebuild_index(folder, model=RecordingEncoder(48, "other"))[:4] == (0, 0, 0, 48)
    assert verify_index(folder).dimension == 48


@pytest.mark.parametrize("overlap", [0, 2])
@pytest.mark.parametrize("at", ["tokens"])
def test_chunks_are_joined_to_the_text(overlap: int, at: Any) -> None:
    text = "one two three four two five six seven eight nine ten"
    document = Document("a", "T", text, {"year": 1})
    options = IndexOptions(chunk_tokens=4, chunk_overlap=overlap, chunk_at=at)
    rows = make_splitter(options, ChunkingEncoder())(document)
    assert len(rows) > 2
    assert join_chunks(rows) == document
    assert join_chunks([document]) == document


def test_chunks_at_sentences_are_joined_to_the_text() -> None:
    import llm2comp

    text = "\n\n".join(
        f"## Part {part}\n\n" + " ".join(f"Sentence {row} of it is here." for row in range(12)) for part in range(4)
    )
    document = Document("a", "T", text, {"year": 1})
    for overlap in (0, 20):
        options = IndexOptions(chunk_tokens=60, chunk_overlap=overlap)
        rows = make_splitter(options, llm2comp.load())(document)
        assert len(rows) > 4
        joined = join_chunks(rows)
        assert joined.text == text
        assert (joined.id, joined.metadata) == ("a", {"year": 1})
        assert json.dumps(joined.metadata)


def test_an_index_of_vectors_without_texts(tmp_path: Path) -> None:
    vectors = RecordingEncoder().encode_query(["bread", "moon"])
    folder = build_of_vectors(tmp_path, vectors, vectors, IndexOptions())
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(CorpusError, match='"v0": the index was made of vectors and has no text'):
        rebuild_index(folder, model=RecordingEncoder())
    assert (folder / "manifest.json").read_bytes() == before
