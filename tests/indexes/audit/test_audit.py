"""The audit of an index: rows drawn, their fidelities, and what the command prints and writes."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2comp.analysis import measure_fidelity
from llm2comp.errors import BackboneError, IndexFolderError, SettingsError
from llm2comp.model import LLM2Comp
from llm2comp_indexes import AuditSettings, IndexOptions, audit_index, build_index, delete_documents, open_index
from llm2comp_indexes.audit.histogram import make_bins
from tests.conftest import BACKBONE
from tests.training.tiny import text, write_corpus
from tests.word_encoder import WordEncoder

TEXTS = [text(number, 3 + 4 * (number % 4)) for number in range(12)]


@pytest.fixture(scope="module")
def model(make_model: Callable[..., LLM2Comp]) -> LLM2Comp:
    return make_model(max_length=300)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, model: LLM2Comp) -> Path:
    """An index of twelve documents, of which two are deleted."""
    folder = tmp_path_factory.mktemp("audit")
    write_corpus(folder / "corpus.jsonl", TEXTS)
    build_index([folder / "corpus.jsonl"], folder / "index", model=model)
    delete_documents(folder / "index", ["d1", "d7"])
    return folder / "index"


def encoded(number: int) -> str:
    return f"Bridge {number}\n{TEXTS[number]}"


class TestAudit:
    def test_of_all_rows(self, index: Path, model: LLM2Comp) -> None:
        audit = audit_index(index, AuditSettings(sample=None), model=model)
        numbers = [number for number in range(12) if number not in (1, 7)]
        assert [row.id for row in audit.audited] == [f"d{number}" for number in numbers]
        expected = measure_fidelity(model, [encoded(number) for number in numbers])
        for row, fidelity in zip(audit.audited, expected, strict=True):
            assert row.fidelity.memory == pytest.approx(fidelity.memory, abs=1e-5)
            assert row.fidelity.tokens == fidelity.tokens == row.traits[0]
        assert (audit.rows, audit.too_short, audit.own_model, audit.summary.texts) == (10, 0, True, 10)
        lowest = audit.lowest(3)
        assert [row.share for row in lowest] == sorted(audit.shares)[:3]

    def test_of_a_sample_that_the_seed_draws(self, index: Path, model: LLM2Comp) -> None:
        def drawn(**options: Any) -> list[str]:
            return [row.id for row in audit_index(index, AuditSettings(sample=4, **options), model=model).audited]

        first = drawn()
        assert len(first) == len(set(first)) == 4
        assert first == drawn() == sorted(first, key=lambda name: int(name[1:]))
        assert {tuple(drawn(seed=seed)) for seed in range(5)} != {tuple(first)}
        assert not {"d1", "d7"} & {name for seed in range(5) for name in drawn(seed=seed)}

    def test_of_continuations_counts_rows_too_short(self, model: LLM2Comp, tmp_path: Path) -> None:
        write_corpus(tmp_path / "corpus.jsonl", [text(1, 20), "", text(2, 20)])
        build_index([tmp_path / "corpus.jsonl"], tmp_path / "index", model=model)
        audit = audit_index(tmp_path / "index", AuditSettings(measure="continuation"), model=model)
        assert [row.id for row in audit.audited] == ["d0", "d2"]
        assert audit.too_short == 1
        [whole] = measure_fidelity(model, [f"Bridge 0\n{text(1, 20)}"])
        assert audit.audited[0].traits[0] == whole.tokens

    def test_of_chunks_reads_what_was_encoded(self, model: LLM2Comp, tmp_path: Path) -> None:
        write_corpus(tmp_path / "corpus.jsonl", [text(1, 40)])
        options = IndexOptions(chunk_tokens=100)
        build_index([tmp_path / "corpus.jsonl"], tmp_path / "index", model=model, options=options)
        audit = audit_index(tmp_path / "index", model=model)
        assert len(audit.audited) > 1
        with open_index(tmp_path / "index", model=model) as opened:
            chunk = opened.segments[0].documents[1]
        assert audit.audited[1].id == "d0#2"
        assert audit.audited[1].text == f"Bridge 0\n{chunk.text}"

    def test_by_another_model_says_so(self, index: Path, make_model: Callable[..., LLM2Comp]) -> None:
        audit = audit_index(index, AuditSettings(sample=2), model=make_model(memory_tokens=2, max_length=300))
        assert audit.own_model is False


class TestMistakes:
    def test_no_reader(self, index: Path, make_model: Callable[..., LLM2Comp]) -> None:
        trained = make_model(adapter=None, max_length=300)
        trained.changed("supervised")
        with pytest.raises(SettingsError, match="all its weights were trained.*--reader"):
            audit_index(index, model=trained)
        audit = audit_index(index, AuditSettings(sample=2, reader=str(BACKBONE)), model=trained)
        assert audit.summary.texts == 2

    def test_a_model_without_memory_tokens(self, tmp_path: Path) -> None:
        write_corpus(tmp_path / "corpus.jsonl", TEXTS)
        build_index([tmp_path / "corpus.jsonl"], tmp_path / "index", model=WordEncoder())
        with pytest.raises(SettingsError, match="WordEncoder has no memory tokens that a language model could read"):
            audit_index(tmp_path / "index", model=WordEncoder())

    def test_a_reader_of_another_width(self, index: Path, make_model: Callable[..., LLM2Comp]) -> None:
        from llm2comp.bundled_models import bundled_folder

        settings = AuditSettings(reader=str(bundled_folder("llm2comp-tiny") / "backbone"))
        with pytest.raises(BackboneError, match="the reader's width is 256, the encoder's 64"):
            audit_index(index, settings, model=make_model(max_length=300))

    def test_nothing_to_read(self, model: LLM2Comp, tmp_path: Path) -> None:
        write_corpus(tmp_path / "corpus.jsonl", ["", ""])
        build_index([tmp_path / "corpus.jsonl"], tmp_path / "index", model=model)
        with pytest.raises(SettingsError, match="none of the 2 rows is long enough to be cut in two"):
            audit_index(tmp_path / "index", AuditSettings(measure="continuation"), model=model)
        delete_documents(tmp_path / "index", ["d0", "d1"])
        with pytest.raises(IndexFolderError, match="an index without documents has nothing to read"):
            audit_index(tmp_path / "index", model=model)

    def test_settings(self) -> None:
        with pytest.raises(SettingsError, match="sample is 0, expected at least 1"):
            AuditSettings(sample=0)
        with pytest.raises(SettingsError, match="measure is 'words', expected one of reconstruction, continuation"):
            AuditSettings(measure="words")  # type: ignore[arg-type]


class TestFiles:
    def test_what_is_printed_and_written(self, index: Path, model: LLM2Comp, tmp_path: Path) -> None:
        from llm2comp_indexes.audit.report import format_audit, output_folder, write_audit

        audit = audit_index(index, AuditSettings(sample=None), model=model)
        printed = format_audit(audit, lowest=2, printable=str)
        assert "reconstruction of 10 of 10 rows" in printed
        first = audit.lowest(1)[0]
        assert f"{first.share:.3f}" in printed
        assert first.id in printed
        assert "rank correlation of the share" in printed
        with output_folder(tmp_path / "made" / "here"):
            numbers, lines, *picture = write_audit(audit, tmp_path / "made" / "here", lowest=2)
        content = json.loads(numbers.read_text())
        assert [row["id"] for row in content["lowest"]] == [row.id for row in audit.lowest(2)]
        assert sum(one["rows"] for one in content["bins"]) == len(audit.shares)
        assert len(content["bins"]) == len(make_bins(audit.shares))
        rows = list(csv.DictReader(lines.read_text().splitlines(), delimiter="\t"))
        assert [row["id"] for row in rows] == [row.id for row in audit.audited]
        for row, audited in zip(rows, audit.audited, strict=True):
            assert row["share"] == ("" if audited.share is None else f"{audited.share:.6f}")
            assert int(row["tokens"]) == audited.fidelity.tokens
        assert [file.name for file in picture] == ["histogram.png"]
        assert picture[0].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
