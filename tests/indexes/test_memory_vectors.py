"""Vectors of memory tokens in an index: through every change of it, and rescoring by them."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes import (
    Index,
    IndexOptions,
    Part,
    SearchOptions,
    VectorFiles,
    add_documents,
    build_from_vectors,
    build_index,
    delete_documents,
    encode_shard,
    export_index,
    forecast_build,
    merge_index,
    open_index,
    rebuild_index,
    sync_index,
    undo_index,
    verify_index,
)
from llm2comp_indexes.builder import blocks as row_blocks
from llm2comp_indexes.change.vectors import create_empty_index, upsert_vectors
from llm2comp_indexes.distributed.request import make_request
from llm2comp_indexes.format.segment import Names
from llm2comp_indexes.options import MEMORY_KINDS, MemoryKind
from tests.memory_encoder import MemoryWordEncoder
from tests.word_encoder import WORDS, WordEncoder

QUESTION = "bread moon rain"
INT8 = IndexOptions(memory_vectors="int8")


def texts(count: int, first: int = 0) -> dict[str, str]:
    return {
        f"d{row}": " ".join(np.random.default_rng(row).choice(WORDS, 7)) + f" n{row}"
        for row in range(first, first + count)
    }


def rows_of(documents: dict[str, str]) -> list[dict[str, Any]]:
    return [{"_id": name, "text": text, "even": int(name[1:]) % 2 == 0} for name, text in documents.items()]


def rounded(memory: NDArray[np.float32], kind: MemoryKind) -> NDArray[np.float64]:
    """What the file stands for."""
    if kind == "int8":
        return np.round(memory.astype(np.float64) * 127) / 127
    return np.where(memory >= 0, 1.0, -1.0) / memory.shape[-1] ** 0.5


def by_the_book(question: str, documents: dict[str, str], kind: MemoryKind = "int8") -> list[tuple[str, float]]:
    """All documents by MaxSim, best first."""
    encoder = MemoryWordEncoder()
    [query] = encoder.memory_of([question]).astype(np.float64)
    scores = {
        name: sum(max(float(one @ other) for other in memory) for one in query)
        for name, memory in zip(documents, rounded(encoder.memory_of(list(documents.values())), kind), strict=True)
    }
    return sorted(scores.items(), key=lambda pair: -pair[1])


def check(folder: Path, documents: dict[str, str], kind: MemoryKind = "int8") -> None:
    """The index holds these documents and the vectors of their memory tokens, and is whole."""
    manifest = verify_index(folder)
    assert manifest.documents == len(documents)
    assert (manifest.options.memory_vectors, manifest.memory_tokens) == (kind, 3)
    with open_index(folder, model=MemoryWordEncoder()) as index:
        [hits] = index.search([QUESTION], k=len(documents), rescore="maxsim")
    expected = by_the_book(QUESTION, documents, kind)
    assert [hit.id for hit in hits] == [name for name, _ in expected]
    np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in expected], atol=1e-6)


@pytest.fixture
def build(tmp_path: Path, write_corpus: Callable[..., Path]) -> Callable[..., Path]:
    def make(documents: dict[str, str], kind: MemoryKind = "int8", **options: Any) -> Path:
        corpus = write_corpus(rows_of(documents))
        chosen = IndexOptions(memory_vectors=kind, **options)
        build_index([corpus], tmp_path / "idx", model=MemoryWordEncoder(), options=chosen, overwrite=True)
        return tmp_path / "idx"

    return make


class TestBuild:
    @pytest.mark.parametrize("kind", MEMORY_KINDS)
    def test_stored(self, build: Callable[..., Path], kind: MemoryKind) -> None:
        folder = build(texts(20), kind)
        check(folder, texts(20), kind)
        [segment] = verify_index(folder).segments
        assert segment.files[Names.MEMORY].bytes == 64 + 20 * 3 * (32 if kind == "int8" else 4)

    def test_one_pass_a_row(self, tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
        encoder = MemoryWordEncoder()
        build_index([write_corpus(rows_of(texts(9)))], tmp_path / "idx", model=encoder, memory_vectors="int8")
        assert (encoder.passes, encoder.documents) == (1, 9)

    def test_off_by_default(self, tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
        """Without them, the manifest is that of earlier versions, which open the index."""
        encoder = MemoryWordEncoder()
        build_index([write_corpus(rows_of(texts(3)))], tmp_path / "idx", model=encoder)
        assert encoder.passes == 0
        content = json.loads((tmp_path / "idx" / "manifest.json").read_text())
        assert "memory_vectors" not in content["options"]
        assert "memory_tokens" not in content

    def test_pooled_vectors_are_the_same(self, build: Callable[..., Path]) -> None:
        with open_index(build(texts(9)), model=MemoryWordEncoder()) as index:
            stored = index.segments[0].storage.read(np.arange(9))
        np.testing.assert_array_equal(stored, WordEncoder().encode_document(list(texts(9).values())))

    def test_resumed(self, tmp_path: Path, write_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(row_blocks, "BLOCK", 4)
        corpus, folder = write_corpus(rows_of(texts(20))), tmp_path / "idx"

        class Stopped(MemoryWordEncoder):
            def encode_vectors(self, texts: list[str], **options: Any) -> Any:
                if self.passes == 3:
                    raise KeyboardInterrupt
                return super().encode_vectors(texts, **options)

        with pytest.raises(KeyboardInterrupt):
            build_index([corpus], folder, model=Stopped(), options=INT8)
        [memory] = folder.glob(f"segments/*/{Names.MEMORY}")
        os.truncate(memory, memory.stat().st_size - 1)  # of the last block a byte is lost, and it is encoded again
        encoder = MemoryWordEncoder()
        report = build_index([corpus], folder, model=encoder, options=INT8)
        assert report.encoded == encoder.documents == 12
        check(folder, texts(20))

    def test_not_resumed_as_another_kind(
        self, tmp_path: Path, write_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(row_blocks, "BLOCK", 4)
        corpus, folder = write_corpus(rows_of(texts(8))), tmp_path / "idx"

        class Stopped(MemoryWordEncoder):
            def encode_vectors(self, texts: list[str], **options: Any) -> Any:
                if self.passes == 1:
                    raise KeyboardInterrupt
                return super().encode_vectors(texts, **options)

        with pytest.raises(KeyboardInterrupt):
            build_index([corpus], folder, model=Stopped(), options=INT8)
        report = build_index([corpus], folder, model=MemoryWordEncoder(), memory_vectors="binary")
        assert report.encoded == 8
        check(folder, texts(8), "binary")

    def test_forecast_counts_their_bytes(self, tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
        corpus = write_corpus(rows_of(texts(40)))
        plain = forecast_build([corpus], model=MemoryWordEncoder()).bytes
        with_memory = forecast_build([corpus], model=MemoryWordEncoder(), options=INT8).bytes
        assert with_memory - plain == 64 + 40 * 3 * 32


class TestChanges:
    @pytest.mark.parametrize("kind", MEMORY_KINDS)
    def test_add_delete_merge_undo(
        self, build: Callable[..., Path], write_corpus: Callable[..., Path], kind: MemoryKind
    ) -> None:
        folder, encoder = build(texts(8), kind), MemoryWordEncoder()
        add_documents(folder, [write_corpus(rows_of(texts(6, first=8)), "more.jsonl")], model=encoder)
        assert encoder.passes == 1
        check(folder, texts(14), kind)
        undo_index(folder)
        check(folder, texts(8), kind)
        add_documents(folder, [write_corpus(rows_of(texts(6, first=8)), "more.jsonl")], model=encoder)
        delete_documents(folder, ["d0", "d9", "d13"])
        left = {name: text for name, text in texts(14).items() if name not in ("d0", "d9", "d13")}
        check(folder, left, kind)
        merge_index(folder)
        check(folder, left, kind)
        assert len(verify_index(folder).segments) == 1

    def test_replaced_documents(self, build: Callable[..., Path], write_corpus: Callable[..., Path]) -> None:
        folder = build(texts(8))
        changed = {"d3": "moon moon moon", "d6": "bread rain"}
        add_documents(folder, [write_corpus(rows_of(changed), "changed.jsonl")], model=MemoryWordEncoder())
        check(folder, texts(8) | changed)

    def test_small_segments_are_merged(self, build: Callable[..., Path], write_corpus: Callable[..., Path]) -> None:
        folder = build(texts(3))
        for number in range(3, 16):
            corpus = write_corpus(rows_of(texts(1, first=number)), f"{number}.jsonl")
            add_documents(folder, [corpus], model=MemoryWordEncoder())
        assert len(verify_index(folder).segments) < 8
        check(folder, texts(16))

    def test_a_merge_changes_no_kind(self, build: Callable[..., Path]) -> None:
        with pytest.raises(SettingsError, match="cannot change memory_vectors"):
            merge_index(build(texts(3)), options=IndexOptions(memory_vectors="binary"))

    def test_rebuilt(self, build: Callable[..., Path]) -> None:
        folder, encoder = build(texts(8)), MemoryWordEncoder()
        rebuild_index(folder, model=encoder, options=IndexOptions(memory_vectors="binary"))
        check(folder, texts(8), "binary")
        rebuild_index(folder, model=encoder, options=IndexOptions())
        assert not list(folder.glob(f"segments/000003/{Names.MEMORY}"))
        rebuild_index(folder, model=encoder, options=INT8)
        check(folder, texts(8))

    def test_renamed_files_keep_theirs(self, tmp_path: Path) -> None:
        """A sync takes the vectors of a renamed file from the index."""
        notes = tmp_path / "notes"
        notes.mkdir()
        for name, text in texts(6).items():
            (notes / f"{name}.txt").write_text(text)
        build_index([notes], tmp_path / "idx", model=MemoryWordEncoder(), options=INT8)
        (notes / "d2.txt").rename(notes / "e2.txt")
        (notes / "d9.txt").write_text("moon rain moon")
        encoder = MemoryWordEncoder()
        report = sync_index(tmp_path / "idx", model=encoder)
        assert (report.renamed, report.added, encoder.documents) == (1, 1, 1)
        with open_index(tmp_path / "idx", model=encoder) as index:
            ids = [index.segments[1].document_id(row) for row in range(2)]
            memory = index.segments[1].memory
            assert memory is not None
            stored = memory.read(np.arange(2))
        new = {next(name for name in ids if "e2" in name): texts(6)["d2"]}
        new |= {next(name for name in ids if "d9" in name): "moon rain moon"}
        expected = rounded(encoder.memory_of([new[name] for name in ids]), "int8")
        np.testing.assert_allclose(stored, expected, atol=1e-6)

    def test_emptied_and_filled_again(self, build: Callable[..., Path], write_corpus: Callable[..., Path]) -> None:
        folder = build(texts(3))
        delete_documents(folder, list(texts(3)))
        with open_index(folder, model=MemoryWordEncoder()) as index:
            assert index.search([QUESTION], rescore="maxsim") == [[]]
        add_documents(folder, [write_corpus(rows_of(texts(5)), "more.jsonl")], model=MemoryWordEncoder())
        check(folder, texts(5))


class TestDamage:
    def test_found_by_verify_and_merge(self, build: Callable[..., Path]) -> None:
        folder = build(texts(5))
        delete_documents(folder, ["d1"])
        [file] = folder.glob(f"segments/*/{Names.MEMORY}")
        content = bytearray(file.read_bytes())
        content[100] ^= 1
        file.write_bytes(content)
        with pytest.raises(IndexFolderError, match=f"{Names.MEMORY}: altered"):
            verify_index(folder)
        with pytest.raises(IndexFolderError, match=f"{Names.MEMORY}: altered"):
            merge_index(folder)  # whose copy would get a new checksum

    def test_missing(self, build: Callable[..., Path]) -> None:
        folder = build(texts(5))
        [file] = folder.glob(f"segments/*/{Names.MEMORY}")
        file.unlink()
        with pytest.raises(IndexFolderError, match=f"{Names.MEMORY}: missing"):
            open_index(folder)


class TestRefused:
    def test_a_model_without_memory_tokens(self, tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
        corpus = write_corpus(rows_of(texts(3)))
        with pytest.raises(SettingsError, match="WordEncoder\\) has no memory tokens"):
            build_index([corpus], tmp_path / "idx", model=WordEncoder(), options=INT8)
        assert not (tmp_path / "idx").exists()

    def test_another_number_of_them(self, build: Callable[..., Path]) -> None:
        class Other(MemoryWordEncoder):
            def __init__(self) -> None:
                super().__init__(memory_tokens=3)
                self.memory_tokens = 5

        message = "holds the vectors of 3 memory tokens a row, the model has 5"
        with open_index(build(texts(3)), model=Other()) as index, pytest.raises(SettingsError, match=message):
            index.search([QUESTION], rescore="maxsim")

    def test_an_index_without(self, index_folder: Path, encoder: WordEncoder) -> None:
        message = "holds no vectors of memory tokens .*--memory-vectors int8"
        with open_index(index_folder, model=encoder) as index, pytest.raises(SettingsError, match=message):
            index.search([QUESTION], rescore="maxsim")

    def test_what_makes_none(self, tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
        corpus = write_corpus(rows_of(texts(3)))
        np.save(tmp_path / "v.npy", np.eye(3, dtype=np.float32))
        (tmp_path / "ids").write_text("d0\nd1\nd2\n")
        tries: Sequence[Callable[[], Any]] = [
            lambda: build_from_vectors(
                VectorFiles([tmp_path / "v.npy"], tmp_path / "ids"), tmp_path / "idx", options=INT8
            ),
            lambda: encode_shard([corpus], tmp_path / "s", part=Part(1, 1), model=MemoryWordEncoder(), options=INT8),
            lambda: create_empty_index(tmp_path / "idx", fingerprint="f", options=INT8),
            lambda: make_request(tmp_path / "r", "words", None, INT8, "shards", None, overwrite=False),
        ]
        for attempt in tries:
            with pytest.raises(SettingsError, match="memory_vectors is 'int8', but"):
                attempt()

    def test_given_vectors(self, build: Callable[..., Path]) -> None:
        folder = build(texts(3))
        with pytest.raises(IndexFolderError, match="to which only `llm2comp index add`"):
            upsert_vectors(folder, [Document("x", "", "text")], np.ones((1, 32), np.float32))

    def test_an_export_says_what_it_leaves_out(
        self, build: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        export_index(build(texts(3)), tmp_path / "out.jsonl", format="jsonl")
        assert "the vectors of memory tokens (int8) stay in the index" in caplog.text

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rescore": "colbert"}, "rescore is 'colbert', expected maxsim"),
            ({"candidates": 5}, "candidates is 5 without rescore"),
            ({"rescore": "maxsim", "candidates": 0}, "candidates is 0, expected 1 to 10,000"),
        ],
    )
    def test_options_of_a_search(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(SettingsError, match=message):
            SearchOptions(**options)

    def test_options_of_an_index(self) -> None:
        with pytest.raises(SettingsError, match="memory_vectors is 'float', expected one of int8, binary"):
            IndexOptions(memory_vectors="float")  # type: ignore[arg-type]


@pytest.fixture
def index(build: Callable[..., Path]) -> Iterable[Index]:
    with open_index(build(texts(40), hybrid=True), model=MemoryWordEncoder()) as opened:
        yield opened


class TestSearch:
    def test_only_candidates_are_answers(self, index: Index) -> None:
        dense = {hit.id for hit in index.search([QUESTION], k=12)[0]}
        [hits] = index.search([QUESTION], k=5, rescore="maxsim", candidates=12)
        expected = [pair for pair in by_the_book(QUESTION, texts(40)) if pair[0] in dense][:5]
        assert [hit.id for hit in hits] == [name for name, _ in expected]

    def test_several_queries(self, index: Index) -> None:
        questions = [QUESTION, "oven tides", "field"]
        found = index.search(questions, k=3, rescore="maxsim")
        expected = [[name for name, _ in by_the_book(question, texts(40))[:3]] for question in questions]
        assert [[hit.id for hit in hits] for hits in found] == expected

    def test_filter(self, index: Index) -> None:
        options = SearchOptions(where="even", rescore="maxsim")
        [hits] = index.search([QUESTION], k=4, options=options)
        expected = [name for name, _ in by_the_book(QUESTION, texts(40)) if int(name[1:]) % 2 == 0][:4]
        assert [hit.id for hit in hits] == expected

    @pytest.mark.parametrize("mode", ["bm25", "hybrid"])
    def test_candidates_by_words(self, index: Index, mode: Any) -> None:
        plain = index.search([QUESTION], k=10, options=SearchOptions(mode=mode))[0]
        [hits] = index.search([QUESTION], k=10, options=SearchOptions(mode=mode), rescore="maxsim", candidates=10)
        assert {hit.id for hit in hits} == {hit.id for hit in plain}
        scores = dict(by_the_book(QUESTION, texts(40)))
        np.testing.assert_allclose([hit.score for hit in hits], [scores[hit.id] for hit in hits], atol=1e-6)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)

    def test_fewer_candidates_than_answers(self, index: Index) -> None:
        with pytest.raises(SettingsError, match="candidates is 5 and k 10"):
            index.search([QUESTION], k=10, rescore="maxsim", candidates=5)

    def test_given_vectors_choose_candidates(self, index: Index) -> None:
        far = MemoryWordEncoder().encode_query(["harbour"])
        near = {hit.id for hit in index.search([QUESTION], k=6, vectors=far)[0]}
        [hits] = index.search([QUESTION], k=6, vectors=far, rescore="maxsim", candidates=6)
        assert {hit.id for hit in hits} == near

    def test_vectors_alone_cannot_be_rescored(self, index: Index) -> None:
        with pytest.raises(SettingsError, match="needs the queries themselves"):
            index.search_vectors(np.ones((1, 32), np.float32), options=SearchOptions(rescore="maxsim"))


def test_chunks_by_document(tmp_path: Path, model: Any) -> None:
    """One answer a document, even if all candidates are chunks of few; and every chunk has its own vectors."""
    rows = [
        {"_id": f"d{row}", "text": f"bread {row} rises. the moon is {row} far. rain falls on {row} fields."}
        for row in range(6)
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = IndexOptions(chunk_tokens=8, memory_vectors="int8")
    build_index([tmp_path / "c.jsonl"], tmp_path / "idx", model=model, options=options)
    with open_index(tmp_path / "idx", model=model) as index:
        assert index.manifest.rows > 6
        search = SearchOptions(by="document", rescore="maxsim", candidates=6)
        [hits] = index.search(["rain"], k=6, options=search)
        assert sorted(hit.document_id for hit in hits) == [f"d{row}" for row in range(6)]
        query = model.encode_vectors(["rain"], task="query").memory[0]
        from llm2comp_indexes.builder.chunks import make_text_of_row

        text_of = make_text_of_row(options, model)
        texts_of_hits = [text_of(Document(hit.id, hit.title, hit.text, hit.metadata)) for hit in hits]
        memory = rounded(model.encode_vectors(texts_of_hits).memory, "int8")
        expected = [sum(max(float(one @ other) for other in its) for one in query) for its in memory]
        np.testing.assert_allclose([hit.score for hit in hits], expected, atol=1e-3)
