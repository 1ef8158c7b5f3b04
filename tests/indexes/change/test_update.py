"""Adding and deleting: what is encoded and replaced, what a search finds afterwards, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import CorpusError, IndexFolderError, SettingsError
from llm2comp_indexes import (
    Effort,
    IndexOptions,
    add_documents,
    build_index,
    delete_documents,
    open_index,
    verify_index,
)
from llm2comp_indexes.change import compare
from tests.indexes.clustered import draw_vectors
from tests.indexes.live import (
    ChunkingEncoder,
    RecordingEncoder,
    answers,
    build_of_vectors,
    identifiers,
    make_documents,
    names,
)
from tests.word_encoder import WordEncoder

Write = Callable[..., Path]


@pytest.fixture
def encoder() -> RecordingEncoder:
    return RecordingEncoder()


@pytest.fixture
def build(tmp_path: Path, write_corpus: Write, encoder: RecordingEncoder) -> Callable[..., Path]:
    """Builds an index of documents and clears the record of texts encoded."""

    def make(documents: list[dict[str, Any]], name: str = "idx", **options: Any) -> Path:
        build_index(
            [write_corpus(documents, f"{name}.jsonl")], tmp_path / name, model=encoder, options=IndexOptions(**options)
        )
        encoder.texts.clear()
        return tmp_path / name

    return make


def test_unchanged_documents_are_not_encoded_and_make_no_commit(
    build: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder
) -> None:
    folder = build(make_documents(range(20)))
    before = (folder / "manifest.json").read_bytes()
    report = add_documents(folder, [write_corpus(make_documents(range(20)))], model=encoder)
    assert report[:4] == (0, 0, 20, 0)
    assert encoder.texts == []
    assert (folder / "manifest.json").read_bytes() == before


def test_only_what_is_new_or_changed_is_encoded(
    build: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder
) -> None:
    folder = build(make_documents(range(20)))
    changed, new = make_documents([3, 7], seed=1), make_documents(range(20, 25))
    report = add_documents(folder, [write_corpus([*changed, *make_documents([4, 5, 6]), *new])], model=encoder)
    assert report[:4] == (5, 2, 3, 0)
    assert encoder.texts == [f"{document['title']}\n{document['text']}" for document in [*changed, *new]]


def test_an_added_index_answers_as_one_that_was_built_of_everything(
    build: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder
) -> None:
    folder = build(make_documents(range(20)), "idx")
    add_documents(
        folder, [write_corpus([*make_documents([3, 7], seed=1), *make_documents(range(20, 25))])], model=encoder
    )
    rebuilt = build(
        [*make_documents([row for row in range(25) if row not in (3, 7)]), *make_documents([3, 7], seed=1)], "rebuilt"
    )
    assert answers(folder, encoder) == answers(rebuilt, encoder)
    assert verify_index(folder).documents == len(open_index(folder, model=encoder)) == 25


@pytest.mark.parametrize("field", ["title", "text", "year", "new"])
def test_a_change_of_any_field_replaces_the_document(
    build: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder, field: str
) -> None:
    folder = build(make_documents(range(5)))
    [document] = make_documents([2])
    report = add_documents(folder, [write_corpus([{**document, field: "other"}])], model=encoder)
    assert report[:3] == (0, 1, 0)
    [hit] = [hit for hit in open_index(folder, model=encoder).search(["bread"], 100)[0] if hit.id == "d2"]
    assert {"title": hit.title, "text": hit.text, **hit.metadata}[field] == "other"


def test_a_document_changed_again_and_again_is_there_once(
    build: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder
) -> None:
    folder = build(make_documents(range(5)))
    for seed in range(1, 5):
        assert add_documents(folder, [write_corpus(make_documents([2], seed))], model=encoder)[:3] == (0, 1, 0)
    index = open_index(folder, model=encoder)
    [hit] = [hit for hit in index.search(["bread"], 100)[0] if hit.id == "d2"]
    assert hit.text == make_documents([2], seed=4)[0]["text"]
    assert len(index) == 5
    assert len(index.segments) == 2, "a segment whose every document was replaced is gone"


CHUNKED = {"chunk_tokens": 3, "chunk_overlap": 1, "chunk_at": "tokens"}


def test_a_document_of_chunks_is_replaced_and_deleted_as_a_whole(
    build: Callable[..., Path], write_corpus: Write, tmp_path: Path
) -> None:
    encoder = ChunkingEncoder()
    documents: list[dict[str, Any]] = [
        {"_id": "long", "text": "one two three four five six seven", "year": 1},
        {"_id": "short", "text": "one"},
    ]
    build_index([write_corpus(documents)], tmp_path / "idx", model=encoder, options=IndexOptions(**CHUNKED))
    folder = tmp_path / "idx"
    assert identifiers(folder, encoder) == {"long#1", "long#2", "long#3", "short"}
    encoder.texts.clear()

    assert add_documents(folder, [write_corpus(documents)], model=encoder)[:3] == (0, 0, 2)
    assert encoder.texts == []

    documents[0]["text"] = (
        "one two three four five"  # the first chunk stays as it is, and is encoded again with the rest
    )
    assert add_documents(folder, [write_corpus(documents)], model=encoder)[:3] == (0, 1, 1)
    assert encoder.texts == ["one two three", "three four five"]
    assert identifiers(folder, encoder) == {"long#1", "long#2", "short"}
    assert len(open_index(folder, model=encoder)) == 2

    documents[0] = {"_id": "long", "text": "one two"}
    add_documents(folder, [write_corpus(documents)], model=encoder)
    assert identifiers(folder, encoder) == {"long", "short"}

    assert delete_documents(folder, ["long#1"]) == (0, ("long#1",)), "a chunk is no document"
    assert delete_documents(folder, ["long"]) == (1, ())
    assert identifiers(folder, encoder) == {"short"}
    assert verify_index(folder).documents == 1


def test_a_document_that_looks_like_a_chunk_is_one_of_its_own(write_corpus: Write, tmp_path: Path) -> None:
    encoder = ChunkingEncoder()
    posing = {"_id": "a#2", "text": "six", "document": "a", "chunk": 2}
    build_index(
        [write_corpus([{"_id": "a", "text": "one two three four five"}, posing])],
        tmp_path / "idx",
        model=encoder,
        options=IndexOptions(**CHUNKED),
    )
    assert delete_documents(tmp_path / "idx", ["a"]) == (1, ())
    assert identifiers(tmp_path / "idx", encoder) == {"a#2#1"}
    assert delete_documents(tmp_path / "idx", ["a#2"]) == (1, ())


def test_an_id_twice_in_what_is_added(
    build: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder
) -> None:
    folder = build(make_documents(range(5)))
    before = (folder / "manifest.json").read_bytes()
    twice = [*make_documents([9]), *make_documents([9], seed=1)]
    with pytest.raises(CorpusError, match=r"corpus.jsonl:2: duplicate id 'd9'"):
        add_documents(folder, [write_corpus(twice)], model=encoder)
    with pytest.raises(CorpusError, match=r'second.jsonl: id "d9" occurs in an earlier corpus too'):
        add_documents(folder, [write_corpus(twice[:1]), write_corpus(twice[1:], "second.jsonl")], model=encoder)
    assert (folder / "manifest.json").read_bytes() == before
    assert [path.name for path in (folder / "segments").iterdir()] == ["000001"], "nothing worth keeping was left"

    skipped: list[str] = []
    report = add_documents(folder, [write_corpus(twice)], model=encoder, on_error="skip", on_skip=skipped.append)
    assert report[:4] == (1, 0, 0, 1)
    assert "corpus.jsonl:2" in skipped[0]
    assert {hit.text for hit in open_index(folder, model=encoder).search(["bread"], 100)[0] if hit.id == "d9"} == {
        twice[0]["text"]
    }


def test_an_addition_that_failed_goes_on_where_it_was(
    build: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm2comp_indexes.builder.blocks.BLOCK", 4)
    monkeypatch.setattr(compare, "IDS_AT_ONCE", 4)
    folder = build(make_documents(range(5)))
    new = make_documents(range(10, 22))
    corpus = write_corpus(new)
    corpus.write_text(corpus.read_text() + "not json\n")
    with pytest.raises(CorpusError, match=r"corpus.jsonl:13"):
        add_documents(folder, [corpus], model=encoder)
    assert len(verify_index(folder).segments) == 1
    assert len(open_index(folder, model=encoder)) == 5
    done = len(encoder.texts)
    assert done >= 8
    assert add_documents(folder, [write_corpus(new)], model=encoder)[:3] == (12, 0, 0)
    assert len(encoder.texts) - done <= 4, "what had been written was encoded again"
    assert identifiers(folder, encoder) == {f"d{row}" for row in [*range(5), *range(10, 22)]}


def test_what_another_addition_left_is_not_taken_up(
    build: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm2comp_indexes.builder.blocks.BLOCK", 4)
    monkeypatch.setattr(compare, "IDS_AT_ONCE", 4)
    folder = build(make_documents(range(5)))
    corpus = write_corpus(make_documents(range(10, 22)))
    corpus.write_text(corpus.read_text() + "not json\n")
    with pytest.raises(CorpusError):
        add_documents(folder, [corpus], model=encoder)
    encoder.texts.clear()
    other = make_documents(range(10, 20), seed=3)
    add_documents(folder, [write_corpus(other)], model=encoder)
    assert len(encoder.texts) == 10
    hits = {hit.id: hit.text for hit in open_index(folder, model=encoder).search(["bread"], 100)[0]}
    assert {document["_id"]: document["text"] for document in other}.items() <= hits.items()
    assert "d20" not in hits


def test_another_model_is_refused_and_changes_nothing(build: Callable[..., Path], write_corpus: Write) -> None:
    folder = build(make_documents(range(5)))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "LOCK" not in path.name}
    for other, words in (
        (WordEncoder(fingerprint="others"), "fingerprint words-32.*others-32"),
        (WordEncoder(16), "dimension 32, the model gives 16"),
    ):
        with pytest.raises(IndexFolderError, match=words):
            add_documents(folder, [write_corpus(make_documents([9]))], model=other)
    assert {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "LOCK" not in path.name
    } == before


def test_corpora_must_be_a_list_or_one_path(build: Callable[..., Path], encoder: RecordingEncoder) -> None:
    folder = build(make_documents(range(5)))
    with pytest.raises(SettingsError, match="expected a list"):
        add_documents(folder, [], model=encoder)
    with pytest.raises(CorpusError, match="missing.jsonl: no such file"):
        add_documents(folder, "missing.jsonl", model=encoder)


def test_a_folder_without_an_index_is_told_so_and_left_alone(
    tmp_path: Path, write_corpus: Write, encoder: RecordingEncoder
) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(IndexFolderError, match="llm2comp index build"):
            add_documents(folder, [write_corpus(make_documents([1]))], model=encoder)
        with pytest.raises(IndexFolderError, match="llm2comp index build"):
            delete_documents(folder, ["d1"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "empty"]
    assert not list((tmp_path / "empty").iterdir())


def test_deleting_names_what_is_not_there(
    build: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder
) -> None:
    folder = build(make_documents(range(10)))
    add_documents(folder, [write_corpus(make_documents(range(10, 20)))], model=encoder)
    commit = verify_index(folder).commit
    report = delete_documents(folder, ["d1", "nobody", "d15", "d1", "", "D2", "d2 "])
    assert report == (2, ("nobody", "", "D2", "d2 "))
    manifest = verify_index(folder)
    assert manifest.commit == commit + 1, "one commit, whatever segments are concerned"
    assert (manifest.documents, manifest.rows) == (18, 18)
    assert identifiers(folder, encoder) == {f"d{row}" for row in range(20)} - {"d1", "d15"}
    assert delete_documents(folder, ["d1", "d15"]) == (0, ("d1", "d15"))
    assert verify_index(folder).commit == commit + 1, "nothing to delete makes no commit"


def test_ids_are_any_string(build: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder) -> None:
    strange = [
        "",
        " ",
        "a/b/../c",
        "NUL",
        "con.txt",
        "x" * 5000,
        "\n",
        "ä",
        "a\u0308",
        "'; drop",
        "-5",
        "#1",
        "d#1",
        "\x00",
    ]
    documents = [{"_id": name, "text": f"bread {number}"} for number, name in enumerate(strange) if name]
    folder = build(documents)
    assert len(open_index(folder, model=encoder)) == len(documents)
    changed = [{**document, "text": "moon"} for document in documents]
    assert add_documents(folder, [write_corpus(changed)], model=encoder)[:3] == (0, len(documents), 0)
    for document in documents:
        assert delete_documents(folder, [document["_id"]]) == (1, ()), document
    assert len(open_index(folder, model=encoder)) == 0


@pytest.mark.parametrize(
    ("identifiers", "words"),
    [("d1", r"expected a list: \['d1'\]"), ([b"d1"], "b'd1', expected strings"), ([0], "hold 0, expected strings")],
)
def test_ids_that_are_none(build: Callable[..., Path], identifiers: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        delete_documents(build(make_documents(range(5))), identifiers)


def test_an_index_that_everything_was_deleted_from_is_empty_and_lives_on(
    build: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder
) -> None:
    folder = build(make_documents(range(10)), hybrid=True)
    assert delete_documents(folder, [f"d{row}" for row in range(10)]) == (10, ())
    assert (verify_index(folder).documents, verify_index(folder).segments) == (0, ())
    assert names(folder / "segments") == {"000001"}, "of the commit before, kept for undo"
    for mode in ("dense", "bm25", "hybrid"):
        assert answers(folder, encoder, mode=mode) == [[]] * 5
    index = open_index(folder, model=encoder)
    assert index.search_vectors(encoder.encode_query(["bread"]), 3).rows.shape == (1, 0)
    assert delete_documents(folder, ["d1"]) == (0, ("d1",))
    with pytest.raises(IndexFolderError, match="fingerprint"):
        add_documents(folder, [write_corpus(make_documents(range(3)))], model=WordEncoder(fingerprint="others"))
    assert add_documents(folder, [write_corpus(make_documents(range(3)))], model=encoder)[:3] == (3, 0, 0)
    assert names(folder / "segments") == {"000003"}, "and no longer than until the next change"
    rebuilt = build(make_documents(range(3)), "rebuilt", hybrid=True)
    for mode in ("dense", "bm25", "hybrid"):
        assert answers(folder, encoder, mode=mode) == answers(rebuilt, encoder, mode=mode)


def test_ids_over_several_blocks_and_segments(
    build: Callable[..., Path], write_corpus: Write, encoder: RecordingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "IDS_AT_ONCE", 7)
    folder = build(make_documents(range(50)))
    corpus = write_corpus(
        [*make_documents(range(20, 40), seed=1), *make_documents(range(50, 60)), *make_documents(range(5))]
    )
    assert add_documents(folder, [corpus], model=encoder)[:3] == (10, 20, 5)
    names = [f"d{row}" for row in range(10, 70)]
    assert delete_documents(folder, iter(names)) == (50, tuple(f"d{row}" for row in range(60, 70)))
    assert identifiers(folder, encoder) == {f"d{row}" for row in range(10)}


def test_an_index_of_vectors_made_elsewhere_needs_its_model_named(tmp_path: Path, write_corpus: Write) -> None:
    folder = build_of_vectors(tmp_path, draw_vectors(50, 32), draw_vectors(5, 32, seed=1), IndexOptions("flat"))
    with pytest.raises(IndexFolderError, match="made elsewhere.*--model"):
        add_documents(folder, [write_corpus(make_documents([1]))])
    with pytest.raises(IndexFolderError, match="dimension 32, the model gives 16"):
        add_documents(folder, [write_corpus(make_documents([1]))], model=WordEncoder(16))
    encoder = RecordingEncoder()
    assert add_documents(folder, [write_corpus([*make_documents([1]), {"_id": "v7", "text": "bread"}])], model=encoder)[
        :3
    ] == (1, 1, 0)
    assert len(open_index(folder)) == 51


def test_a_large_addition_gets_a_structure_and_one_too_small_for_it_none(
    build: Callable[..., Path], write_corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm2comp_indexes.builder.finish_segment.SMALL", 30)
    encoder = RecordingEncoder()
    folder = build(make_documents(range(200)), type="IVF60,SQ8")
    for rows in (range(200, 220), range(300, 340), range(400, 480)):
        add_documents(folder, [write_corpus(make_documents(rows))], model=encoder)
    assert [segment.type for segment in verify_index(folder).segments] == ["IVF60,SQ8", "Flat", "Flat", "IVF60,SQ8"]
    rebuilt = build(make_documents([*range(220), *range(300, 340), *range(400, 480)]), "rebuilt", type="flat")
    assert answers(folder, encoder, effort=Effort(nprobe=60)) == answers(rebuilt, encoder)


def test_the_report_counts_time_and_skips(
    build: Callable[..., Path], tmp_path: Path, encoder: RecordingEncoder
) -> None:
    folder = build(make_documents(range(5)))
    corpus = tmp_path / "new.jsonl"
    corpus.write_text("".join(json.dumps(document) + "\n" for document in make_documents([8, 9])) + "not json\n")
    report = add_documents(folder, [corpus], model=encoder, on_error="skip", on_skip=lambda message: None)
    assert (report.added, report.skipped) == (2, 1)
    assert 0 < report.encode_seconds <= report.seconds
