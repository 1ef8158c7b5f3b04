"""Building: files written, inputs refused, progress, and no half-written folder ever taken for an index."""

import hashlib
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import llm2comp
from llm2comp.errors import CorpusError, IndexFolderError, LLM2CompError, SettingsError
from llm2comp_indexes import IndexOptions, SearchOptions, Targets, build_index, open_index, verify_index
from llm2comp_indexes.builder import blocks as row_blocks
from llm2comp_indexes.builder import finish_segment
from llm2comp_indexes.format.documents import DocumentReader
from tests.indexes.live import contents, names
from tests.word_encoder import WordEncoder

if TYPE_CHECKING:
    from llm2comp.model import LLM2Comp

LOCK = {"LOCK", "LOCK.pid"}


def test_the_folder_is_laid_out_as_documented(index_folder: Path) -> None:
    manifest = json.loads((index_folder / "manifest.json").read_text())
    expected = {
        "format": 2,
        "commit": 1,
        "dimension": 32,
        "metric": "inner_product",
        "documents": 5,
        "model": {"name": None, "fingerprint": "words-32"},
    }
    assert {name: manifest[name] for name in expected} == expected
    assert {"llm2comp", "faiss", "numpy", "python"} <= set(manifest["created_by"])
    assert names(index_folder) == {"manifest.json", "segments", *LOCK}
    [segment] = manifest["segments"]
    folder = index_folder / "segments" / "000001"
    counts = {"name": "000001", "rows": 5, "deleted": 0, "documents": 5, "type": "Flat"}
    assert {name: segment[name] for name in counts} == counts
    assert names(folder) == set(segment["files"])
    assert {
        "vectors.faiss",
        "documents.jsonl",
        "documents.offsets",
        "documents.ids",
        "metadata.arrow",
        "report.json",
        "queries.npy",
        "origins-000000",
    } == set(segment["files"])
    for name, record in segment["files"].items():
        data = (folder / name).read_bytes()
        assert record == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    documents = [json.loads(line) for line in (folder / "documents.jsonl").read_text().splitlines()]
    assert documents[0] == {
        "id": "d0",
        "title": "Title 0",
        "text": "how bread rises in the oven",
        "metadata": {"year": 2000},
    }


def test_an_index_that_has_everything_names_every_file_of_it(
    tmp_path: Path, make_full_index: Callable[..., Path]
) -> None:
    folder = make_full_index(tmp_path / "idx")
    [segment] = json.loads((folder / "manifest.json").read_text())["segments"]
    assert {f"segments/000001/{name}" for name in segment["files"]} == set(contents(folder)) - {
        "manifest.json",
        "manifest.previous.json",
        *LOCK,
    }
    assert {name.partition("-")[0] for name in segment["files"]} >= {
        "index.faiss",
        "metadata.arrow",
        "deleted",
        "bm25/data.csc.index.npy",
    }


def test_the_same_build_gives_the_same_bytes_but_for_what_a_clock_measured(
    tmp_path: Path, corpus: Path, encoder: WordEncoder
) -> None:
    for name in ("one", "two"):
        build_index([corpus], tmp_path / name, model=encoder, options=IndexOptions("IVF2,SQ8", hybrid=True))
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys()
    assert {name for name in one if one[name] != two[name]} <= {"manifest.json", "segments/000001/report.json"}


def test_the_report_counts(tmp_path: Path, corpus: Path, encoder: WordEncoder) -> None:
    with corpus.open("a") as file:
        file.write('{"_id": "d0", "text": "again"}\nnot json\n')
    messages: list[str] = []
    report = build_index([corpus], tmp_path / "idx", model=encoder, on_error="skip", on_skip=messages.append)
    assert (report.documents, report.skipped, report.dimension) == (5, 2, 32)
    assert report.bytes == sum(
        len(data) for name, data in contents(tmp_path / "idx").items() if name.startswith("segments")
    )
    assert 0 < report.encode_seconds <= report.seconds
    assert ["corpus.jsonl:6" in messages[0], "corpus.jsonl:7" in messages[1]] == [True, True]


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_the_report_is_kept_with_recall_latency_size_and_every_phase(
    tmp_path: Path, corpus: Path, encoder: WordEncoder, kind: str
) -> None:
    report = build_index([corpus], tmp_path / "idx", model=encoder, options=IndexOptions(kind, hybrid=True)).measured
    kept = json.loads((tmp_path / "idx" / "segments" / "000001" / "report.json").read_text())
    assert kept == json.loads(json.dumps(report.to_json()))
    assert {"recall", "median_ms", "p99_ms", "queries"} <= set(kept["point"])
    assert (kept["rows"], kept["dimension"], kept["wishes"]["k"]) == (5, 32, 10)
    assert {"encode", "documents", "write", "bm25", "queries", "choose", "measure"} <= set(kept["seconds"])
    assert kept["bytes"] > 5 * 32 * 4
    assert 0 < kept["point"]["recall"] <= 1
    assert (kept["exact"] is not None) == (kind == "hnsw")
    assert "passages of 4 to 12 words" in report.query_source


def test_no_document_is_read_back_for_the_bm25_index(
    tmp_path: Path, corpus: Path, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    read = DocumentReader.fields
    monkeypatch.setattr(DocumentReader, "fields", lambda reader, row: rows.append(row) or read(reader, row))
    monkeypatch.setattr(finish_segment, "_QUERIES", (2, 2))
    build_index([corpus], tmp_path / "idx", model=encoder, options=IndexOptions("flat", hybrid=True))
    assert len(rows) == 2, "only those that the queries are made of"


def test_progress_counts_what_is_encoded_and_names_each_phase(
    tmp_path: Path, corpus: Path, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_blocks, "BLOCK", 2)
    steps: list[tuple[str, int]] = []
    build_index(
        [corpus],
        tmp_path / "idx",
        model=encoder,
        options=IndexOptions("HNSW4"),
        progress=lambda phase, count: steps.append((phase, count)),
    )
    assert [count for phase, count in steps if phase == "documents"] == [0, 2, 4, 5]
    assert list(dict.fromkeys(phase for phase, _ in steps)) == [
        "documents",
        "rows written",
        "rows in the structure",
        "measuring",
    ]
    assert ("rows written", 5) in steps
    steps.clear()
    monkeypatch.setattr(row_blocks, "BLOCK", 4)
    monkeypatch.setattr(row_blocks, "_PIECE", 1)
    build_index([corpus], tmp_path / "other", model=encoder, progress=lambda phase, count: steps.append((phase, count)))
    assert [count for phase, count in steps if phase == "documents"] == [0, 1, 2, 3, 4, 5], (
        "within a block too, as one may take minutes"
    )
    steps.clear()
    build_index(
        [corpus],
        tmp_path / "idx",
        model=encoder,
        overwrite=True,
        options=IndexOptions("HNSW4"),
        progress=lambda *step: steps.append(step),
    )
    assert [count for phase, count in steps if phase == "rows in the structure"][-1] == 5


def test_the_time_of_loading_a_model_is_not_that_of_documents(
    tmp_path: Path, corpus: Path, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, int]] = []

    def load(name: str) -> WordEncoder:
        assert steps == [("loading the model", 0)]
        return encoder

    monkeypatch.setattr(llm2comp, "load", load)
    build_index([corpus], tmp_path / "idx", model="owner/name", progress=lambda *step: steps.append(step))
    assert steps[1] == ("documents", 0), "the clock of the documents begins when the model is there"


def test_several_corpora_are_joined_in_order(
    tmp_path: Path, corpus: Path, write_corpus: Callable[..., Path], encoder: WordEncoder
) -> None:
    more = write_corpus([{"_id": "e0", "text": "bread"}], "more.jsonl")
    build_index([corpus, more], tmp_path / "idx", model=encoder)
    [hits] = open_index(tmp_path / "idx", model=encoder).search(["bread"], k=9)
    assert hits[0].id == "e0"
    assert len(hits) == 6


def test_an_id_in_two_corpora_is_refused_or_skipped(
    tmp_path: Path, corpus: Path, write_corpus: Callable[..., Path], encoder: WordEncoder
) -> None:
    more = write_corpus([{"_id": "d3", "text": "other"}, {"_id": "e0", "text": "bread"}], "more.jsonl")
    with pytest.raises(CorpusError, match=r'more.jsonl: id "d3"'):
        build_index([corpus, more], tmp_path / "idx", model=encoder)
    report = build_index([corpus, more], tmp_path / "idx", model=encoder, on_error="skip", on_skip=lambda _: None)
    assert (report.documents, report.skipped) == (6, 1)


def test_bad_corpora_leave_nothing(
    tmp_path: Path, corpus: Path, write_corpus: Callable[..., Path], encoder: WordEncoder
) -> None:
    empty, broken = (
        write_corpus([], "empty.jsonl"),
        write_corpus([{"_id": "a", "text": "b"}, {"_id": "a"}], "broken.jsonl"),
    )
    before = names(tmp_path)
    for corpora in (
        [tmp_path / "missing.jsonl"],
        [empty],
        [broken],
        [corpus, empty],
        [corpus, tmp_path / "missing.jsonl"],
    ):
        with pytest.raises(CorpusError, match=corpora[-1].name):
            build_index(corpora, tmp_path / "new" / "parent" / "idx", model=encoder)
    assert names(tmp_path) == before


def test_corpora_must_be_a_list_or_one_path(tmp_path: Path, encoder: WordEncoder) -> None:
    with pytest.raises(SettingsError, match="expected a list"):
        build_index([], tmp_path / "idx", model=encoder)
    with pytest.raises(CorpusError, match="missing.jsonl: no such file"):
        build_index("missing.jsonl", tmp_path / "idx", model=encoder)


def test_a_missing_second_corpus_is_reported_before_anything_is_encoded(
    tmp_path: Path, corpus: Path, encoder: WordEncoder
) -> None:
    with pytest.raises(CorpusError, match=r"missing\.jsonl"):
        build_index([corpus, tmp_path / "missing.jsonl"], tmp_path / "idx", model=encoder)
    assert encoder.documents == 0


@pytest.mark.parametrize(
    "kind",
    [
        "hnws",
        "HNSW1",
        "IVF16",
        "IVF16,PQ5",
        "PQ64,IVF4",
        "IMI2x20,Flat",
        "IVF4,PQ8x24",
        "IVF99999999999,Flat",
        "LSH",
        "\x00",
        "x" * 999,
    ],
)
def test_a_type_that_cannot_be_is_refused_before_anything_is_encoded(
    tmp_path: Path, corpus: Path, encoder: WordEncoder, kind: str
) -> None:
    with pytest.raises(SettingsError, match="^type is '.*expected") as failure:
        build_index([corpus], tmp_path / "idx", model=encoder, options=IndexOptions(kind))
    assert repr(kind)[1:50] in str(failure.value)
    assert encoder.documents == 0
    assert names(tmp_path) == {"corpus.jsonl"}


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_encoded(
    tmp_path: Path, corpus: Path, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm2comp_indexes.structures.gpu.gpu_count", lambda: 0)
    with pytest.raises(SettingsError, match=r'FAISS sees no GPU.*pip install "llm2comp\[gpu\]"'):
        build_index([corpus], tmp_path / "idx", model=encoder, device="cuda")
    assert encoder.documents == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"store": "float64"}, "store is 'float64', expected one of float32, float16, int8"),
        ({"chunk_tokens": 0}, "chunk_tokens is 0"),
        ({"chunk_overlap": 3}, "without chunk_tokens"),
        ({"chunk_tokens": 8, "chunk_overlap": 8}, "expected 0 <= overlap < tokens"),
        ({"chunk_tokens": 8}, "fast tokenizer"),  # which the stand-in has not
    ],
)
def test_options_that_contradict_each_other_are_refused(
    tmp_path: Path, corpus: Path, encoder: WordEncoder, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        build_index([corpus], tmp_path / "idx", model=encoder, options=IndexOptions(**settings))
    assert names(tmp_path) == {"corpus.jsonl"}


def test_more_lists_than_rows_are_refused_and_what_was_encoded_is_kept(
    tmp_path: Path, corpus: Path, encoder: WordEncoder
) -> None:
    """The number of rows is known only at the end of the corpus."""
    with pytest.raises(SettingsError, match="'IVF64,Flat': 64 lists for 5 rows; expected at most a list per row"):
        build_index([corpus], tmp_path / "idx", model=encoder, options=IndexOptions("IVF64,Flat"))
    with pytest.raises(IndexFolderError, match="an unfinished build; run its command again to continue it"):
        open_index(tmp_path / "idx")
    build_index([corpus], tmp_path / "idx", model=encoder, options=IndexOptions("IVF4,Flat"))
    assert encoder.documents == 5
    verify_index(tmp_path / "idx")


def test_targets_that_cannot_be_met_are_told_with_what_is_nearest(
    tmp_path: Path, corpus: Path, encoder: WordEncoder
) -> None:
    with pytest.raises(
        SettingsError,
        match=r"memory is 10 bytes, too little for any index of 5 vectors .*allow at least \d+ bytes \(--memory\)",
    ):
        build_index([corpus], tmp_path / "idx", model=encoder, options=IndexOptions(targets=Targets(memory=10)))
    report = build_index(
        [corpus], tmp_path / "idx", model=encoder, options=IndexOptions(targets=Targets(latency_ms=1e-6))
    ).measured
    assert not report.met
    assert "The targets cannot all be met" in report.reason
    assert "latency gives way before recall" in report.reason


def test_an_output_in_use_is_left_alone(tmp_path: Path, corpus: Path, index_folder: Path, encoder: WordEncoder) -> None:
    before = contents(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("all of it")
    with pytest.raises(IndexFolderError, match="already holds an index.*--overwrite"):
        build_index([corpus], index_folder, model=encoder)
    for overwrite in (False, True):
        with pytest.raises(IndexFolderError, match="something other than an index"):
            build_index([corpus], other, model=encoder, overwrite=overwrite)
        with pytest.raises(IndexFolderError, match="a file, expected a folder"):
            build_index([corpus], corpus, model=encoder, overwrite=overwrite)
    assert contents(tmp_path) == before | {"other/thesis.txt": b"all of it"}


def test_an_empty_folder_and_a_link_to_one_are_filled(tmp_path: Path, corpus: Path, encoder: WordEncoder) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    build_index([corpus], tmp_path / "link", model=encoder)
    assert len(open_index(tmp_path / "real")) == 5


def test_overwriting_replaces_the_index_and_nothing_else(
    tmp_path: Path, index_folder: Path, write_corpus: Callable[..., Path], encoder: WordEncoder
) -> None:
    (index_folder / "notes.txt").write_text("mine")
    old = open_index(index_folder, model=encoder)
    build_index(
        [write_corpus([{"_id": "new", "text": "new"}], "new.jsonl")], index_folder, model=encoder, overwrite=True
    )
    assert [hit.id for hit in open_index(index_folder, model=encoder).search(["bread"])[0]] == ["new"]
    assert names(index_folder) == {"manifest.json", "segments", "notes.txt", *LOCK}
    assert names(index_folder / "segments") == {"000002"}
    assert old.search(["bread"])[0][0].text.startswith("bread"), "a reader of the old index goes on"


def test_a_failed_overwrite_keeps_the_old_index(
    index_folder: Path, write_corpus: Callable[..., Path], encoder: WordEncoder
) -> None:
    before = contents(index_folder)
    broken = write_corpus([{"_id": "a", "text": "b"}, {"_id": "a", "text": "b"}], "broken.jsonl")
    with pytest.raises(CorpusError, match="duplicate"):
        build_index([broken], index_folder, model=encoder, overwrite=True)
    assert contents(index_folder) == before


def test_an_index_that_appeared_meanwhile_is_not_replaced(
    tmp_path: Path,
    corpus: Path,
    write_corpus: Callable[..., Path],
    encoder: WordEncoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = write_corpus([{"_id": "other", "text": "bread"}], "other.jsonl")

    def load(name: str) -> WordEncoder:
        build_index([other], tmp_path / "idx", model=encoder)
        return encoder

    monkeypatch.setitem(vars(llm2comp), "load", load)
    with pytest.raises(IndexFolderError, match="already holds an index"):
        build_index([corpus], tmp_path / "idx", model="slow/model")
    assert len(open_index(tmp_path / "idx")) == 1


@pytest.mark.parametrize(
    ("vectors", "words"),
    [(np.zeros((5, 31)), r"\(5, 31\), expected \(5, 32\)"), (np.full((5, 32), np.inf), "not finite")],
)
def test_wrong_vectors_are_refused(
    tmp_path: Path, corpus: Path, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch, vectors: np.ndarray, words: str
) -> None:
    monkeypatch.setattr(encoder, "encode_document", lambda texts, **_: vectors)
    with pytest.raises(IndexFolderError, match=words):
        build_index([corpus], tmp_path / "idx", model=encoder)
    assert names(tmp_path) == {"corpus.jsonl"}


def test_without_faiss_the_error_has_the_command(
    tmp_path: Path, corpus: Path, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(LLM2CompError, match=r'pip install "llm2comp\[cpu\]"'):
        build_index([corpus], tmp_path / "idx", model=encoder)


class TestWithARealModel:
    """With the tiny model, whose tokenizer and maximum length (64 tokens) matter here."""

    def test_texts_that_were_cut_are_told_once_with_their_number(
        self,
        tmp_path: Path,
        model: "LLM2Comp",
        write_corpus: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(row_blocks, "BLOCK", 2)
        corpus = write_corpus({"_id": f"d{row}", "text": "word " * (200 if row % 2 else 3)} for row in range(7))
        with caplog.at_level(logging.WARNING):
            build_index([corpus], tmp_path / "idx", model=model)
        assert [record.getMessage() for record in caplog.records] == [
            "3 of 7 texts were cut to their first 64 tokens; --chunk-tokens (chunk_tokens) makes several rows of "
            "longer ones"
        ]
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            build_index([corpus], tmp_path / "chunked", model=model, options=IndexOptions(chunk_tokens=32))
            model.encode(["word " * 200])  # warnings of other calls stay as they were
        assert [record.getMessage() for record in caplog.records] == ["the text was cut to its first 64 tokens"]

    @pytest.mark.parametrize(("size", "overlap"), [(8, 0), (8, 3), (1, 0)])
    def test_long_documents_become_chunks(
        self, tmp_path: Path, model: "LLM2Comp", write_corpus: Callable[..., Path], size: int, overlap: int
    ) -> None:
        words = [f"{place}th" for place in range(30)]
        corpus = write_corpus(
            [
                {"_id": "long", "title": "T", "text": " ".join(words), "year": 1999},
                {"_id": "short", "text": words[0][0]},
            ]
        )
        options = IndexOptions(chunk_tokens=size, chunk_overlap=overlap, chunk_at="tokens")
        report = build_index([corpus], tmp_path / "idx", model=model, options=options)
        assert report.documents == 2
        index = open_index(tmp_path / "idx", model=model)
        rows = [index.fetch(row, 0.0) for row in range(index.manifest.rows)]
        chunks, short = rows[:-1], rows[-1]
        assert [hit.id for hit in chunks] == [f"long#{number}" for number in range(1, len(rows))]
        assert (short.id, short.metadata) == ("short", {})
        assert {hit.title for hit in chunks} == {"T"}
        assert [hit.metadata for hit in chunks] == [
            {"year": 1999, "llm2comp_document": "long", "llm2comp_chunk": number} for number in range(1, len(rows))
        ]
        lengths = [len(model.encoder.tokenizer(hit.text, add_special_tokens=False)["input_ids"]) for hit in chunks]
        assert max(lengths) <= size + 1  # a chunk that begins within a word may be split otherwise when it stands alone
        if overlap == 0:
            assert "".join(hit.text for hit in chunks).replace(" ", "") == "".join(words)
        else:
            for one, two in zip(chunks, chunks[1:], strict=False):
                assert any(one.text.endswith(two.text[:shared]) for shared in range(2, len(two.text)))
        [hits] = index.search(["3th"], k=2, options=SearchOptions(by="document"))
        assert sorted(hit.document_id for hit in hits) == ["long", "short"]
