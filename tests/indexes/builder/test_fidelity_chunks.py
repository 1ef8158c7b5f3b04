"""Chunks by fidelity: ends against a plain search, rows against an audit, what an index records, and errors."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2comp.analysis import measure_fidelity
from llm2comp.corpus.documents import Document, Markup
from llm2comp.corpus.split.splitter import Splitter
from llm2comp.errors import SettingsError
from llm2comp.model import LLM2Comp
from llm2comp_indexes import (
    AuditSettings,
    IndexOptions,
    add_documents,
    audit_index,
    build_index,
    forecast_build,
    merge_index,
    open_index,
)
from llm2comp_indexes.builder.fidelity_chunks import FidelitySplitter, longest, reading_share
from tests.conftest import BACKBONE
from tests.training.tiny import text, write_corpus
from tests.word_encoder import WordEncoder


@pytest.fixture(scope="module")
def model(make_model: Callable[..., LLM2Comp]) -> LLM2Comp:
    return make_model(max_length=300)


class TestLongest:
    @pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
    def test_is_what_a_search_of_all_finds_in_few_calls(self, count: int) -> None:
        for answer in range(count + 1):
            for guess in (1, 2, 5, 100):
                calls: list[int] = []

                def holds(number: int, answer: int = answer, calls: list[int] = calls) -> bool:
                    calls.append(number)
                    return number <= answer

                assert longest(count, holds, guess) == answer
                assert len(calls) == len(set(calls)) <= 2 * math.log2(count) + 2
                assert all(1 <= number <= count for number in calls)


class Words:
    """Stands for a reader: a memory holds a text of at most so many words."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, content: str) -> float | None:
        return min(1.0, self.most / len(content.split()))


def cut(model: LLM2Comp, document: Document, most: int, limit: int = 9000) -> tuple[list[str], FidelitySplitter]:
    splitter = FidelitySplitter(Splitter(model.tokenizer, limit, context=False), 0.99, Words(most))
    return [
        piece.repeated + document.text[piece.begin : piece.end] for piece in splitter.split(document).pieces
    ], splitter


class TestEnds:
    def test_sentences_are_packed_as_far_as_they_hold(self, model: LLM2Comp) -> None:
        chance = random.Random(0)
        sentences = [" ".join(["Word", *["word"] * chance.randint(0, 6)]) + "." for _ in range(20)]
        pieces, splitter = cut(model, Document("d", "", " ".join(sentences)), most=9)
        expected: list[list[str]] = [[]]
        for sentence in sentences:
            if len(" ".join([*expected[-1], sentence]).split()) > 9:
                expected.append([])
            expected[-1].append(sentence)
        assert pieces == [" ".join(chunk) for chunk in expected]
        assert splitter.below == 0

    def test_a_sentence_that_does_not_hold_stands_alone_and_is_counted(self, model: LLM2Comp) -> None:
        long = " ".join(["Big"] * 12) + "."
        pieces, splitter = cut(model, Document("d", "", f"One two. {long} Three four. Five six."), most=6)
        assert pieces == ["One two.", long, "Three four. Five six."]
        assert splitter.below == 1

    def test_paragraphs_stay_whole_where_they_hold(self, model: LLM2Comp) -> None:
        document = Document("d", "", "One two. Three four.\n\nFive six. Seven eight.\n\nNine ten.")
        assert cut(model, document, most=4)[0] == ["One two. Three four.", "Five six. Seven eight.", "Nine ten."]
        assert cut(model, document, most=6)[0] == ["One two. Three four.", "Five six. Seven eight.\n\nNine ten."]

    def test_headings_stay_with_what_follows_and_end_a_chunk(self, model: LLM2Comp) -> None:
        document = Document(
            "d", "", "# First\n\nOne two. Three four.\n\n# Second\n\nFive six. Seven.\n", markup=Markup.MARKDOWN
        )
        short = cut(model, document, most=4)[0]
        assert short == ["# First\n\nOne two.", "Three four.", "# Second\n\nFive six.", "Seven."]
        assert cut(model, document, most=8)[0] == ["# First\n\nOne two. Three four.", "# Second\n\nFive six. Seven."]

    def test_rows_of_a_table_repeat_its_header(self, model: LLM2Comp) -> None:
        table = "|a|b|\n|-|-|\n|one|two|\n|three|four|\n|five|six|"
        pieces, _ = cut(model, Document("d", "", table, markup=Markup.MARKDOWN), most=4)
        header = "|a|b|\n|-|-|\n"
        assert pieces == [header + "|one|two|\n|three|four|", header + "|five|six|"]

    def test_code_is_cut_at_its_blocks_and_then_at_lines(self, model: LLM2Comp) -> None:
        code = "def one():\n    x = 1\n    return x\n\n\ndef two():\n    return 2\n"
        document = Document("d", "", code, markup=Markup.CODE)
        whole, _ = cut(model, document, most=7)
        assert whole == ["def one():\n    x = 1\n    return x", "def two():\n    return 2"]
        lines, splitter = cut(model, document, most=3)
        assert lines[:2] == ["def one():", "    x = 1"]
        assert splitter.below == 0

    @pytest.mark.parametrize("seed", range(4))
    def test_nothing_is_lost_and_readings_are_bounded(self, model: LLM2Comp, seed: int) -> None:
        chance = random.Random(seed)
        paragraphs = [text(100 * seed + number, chance.randint(3, 60)) for number in range(12)]
        document = Document("d", "", "\n\n".join(paragraphs))
        for most, limit in ((1, 9000), (5, 9000), (20, 9000), (20, 100), (1000, 300)):
            pieces, splitter = cut(model, document, most, limit)
            assert "".join("".join(pieces).split()) == "".join(document.text.split())
            sentences = document.text.count(".")
            assert splitter.readings <= (len(pieces) + len(paragraphs) + 1) * (2 * math.log2(sentences) + 3)

    def test_a_document_that_holds_is_one_piece_after_one_reading(self, model: LLM2Comp) -> None:
        pieces, splitter = cut(model, Document("d", "", "One two. Three."), most=3)
        assert (pieces, splitter.readings) == (["One two. Three."], 1)


def shares(folder: Path, model: LLM2Comp) -> dict[str, float | None]:
    """The share of each row of an index, by reading what the index says is encoded."""
    audit = audit_index(folder, AuditSettings(sample=None), model=model)
    return {row.id: row.share for row in audit.audited}


@pytest.fixture(scope="module")
def target(model: LLM2Comp) -> float:
    """A share that some of the texts reach; that of a random model is small."""
    found = [one.share for one in measure_fidelity(model, [text(number, 12) for number in range(20)])]
    known = sorted(share for share in found if share is not None)
    return max(0.001, known[len(known) // 2])


class TestIndex:
    def test_every_chunk_keeps_the_share_but_those_counted(
        self, model: LLM2Comp, target: float, tmp_path: Path
    ) -> None:
        write_corpus(tmp_path / "corpus.jsonl", [text(number, 60) for number in range(4)])
        options = IndexOptions(chunk_fidelity=target)
        report = build_index([tmp_path / "corpus.jsonl"], tmp_path / "index", model=model, options=options)
        found = shares(tmp_path / "index", model)
        low = [name for name, share in found.items() if share is None or share < target - 1e-4]
        assert len(found) > 4
        assert len(low) == report.below < len(found)
        with open_index(tmp_path / "index", model=model) as index:
            rows = {row.id: row for row in map(index.segments[0].documents.__getitem__, range(len(found)))}
            hits = index.search(["bridge"], 3)
        assert all(rows[name].text.count(".") == 1 for name in low)  # sentences that stand alone
        assert all(hit.document_id in {"d0", "d1", "d2", "d3"} for hit in hits[0])

    def test_additions_go_on_with_it_and_a_merge_keeps_it(self, model: LLM2Comp, target: float, tmp_path: Path) -> None:
        corpus, folder = tmp_path / "corpus.jsonl", tmp_path / "index"
        write_corpus(corpus, [text(number, 60) for number in range(2)])
        options = IndexOptions(chunk_fidelity=target, chunk_reader=str(BACKBONE))
        build_index([corpus], folder, model=model, options=options)
        before = shares(folder, model)
        write_corpus(corpus, [text(number, 60) for number in range(3)])
        report = add_documents(folder, [corpus], model=model)
        assert (report.added, report.changed, report.unchanged) == (1, 0, 2)
        write_corpus(tmp_path / "third.jsonl", [text(2, 60)])
        after = shares(folder, model)
        assert {name: after[name] for name in before} == pytest.approx(before, abs=1e-5)
        assert sum(name.startswith("d2#") for name in after) > 1
        merge_index(folder)
        with open_index(folder, model=model) as index:
            assert index.manifest.options.chunk_fidelity == target
            assert index.manifest.options.chunk_reader == str(BACKBONE.resolve())
            assert "a fidelity of" in index.manifest.options.describe_chunks()
            assert len(index.segments) == 1

    def test_a_relative_reader_is_recorded_as_an_absolute_path(
        self, model: LLM2Comp, target: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_corpus(tmp_path / "corpus.jsonl", [text(1, 20)])
        monkeypatch.chdir(BACKBONE.parent)
        options = IndexOptions(chunk_fidelity=target, chunk_reader=BACKBONE.name)
        build_index([tmp_path / "corpus.jsonl"], tmp_path / "index", model=model, options=options)
        with open_index(tmp_path / "index", model=model) as index:
            assert index.manifest.options.chunk_reader == str(BACKBONE.resolve())


class TestMistakes:
    @pytest.mark.parametrize("share", [0, 1, -0.5, 1.5, math.nan])
    def test_a_share_out_of_its_range(self, share: float) -> None:
        with pytest.raises(SettingsError, match=r"chunk_fidelity is .*, expected more than 0 and less than 1"):
            IndexOptions(chunk_fidelity=share)

    @pytest.mark.parametrize(
        ("other", "name"),
        [({"chunk_tokens": 64}, "chunk_tokens is 64"), ({"chunk_overlap": 8}, "chunk_overlap is 8")]
        + [({"chunk_at": "tokens"}, "chunk_at is tokens")],
    )
    def test_beside_another_way_of_cutting(self, other: dict[str, Any], name: str) -> None:
        with pytest.raises(SettingsError, match=f"{name} with chunk_fidelity 0.6, which finds the ends of chunks"):
            IndexOptions(chunk_fidelity=0.6, **other)

    def test_a_reader_alone(self) -> None:
        with pytest.raises(SettingsError, match="chunk_reader is llama without chunk_fidelity"):
            IndexOptions(chunk_reader="llama")

    def test_a_model_without_reader_or_memory(self, make_model: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        write_corpus(tmp_path / "corpus.jsonl", [text(1)])
        options = IndexOptions(chunk_fidelity=0.6)
        trained = make_model(adapter=None)
        trained.changed("supervised")
        models: list[tuple[Any, str]] = [(trained, "all its weights were trained.*--reader")]
        for model, message in [*models, (WordEncoder(), "no memory tokens")]:
            with pytest.raises(SettingsError, match=message):
                build_index([tmp_path / "corpus.jsonl"], tmp_path / "index", model=model, options=options)
            assert not (tmp_path / "index").exists()

    def test_a_forecast(self, model: LLM2Comp, tmp_path: Path) -> None:
        write_corpus(tmp_path / "corpus.jsonl", [text(1)])
        with pytest.raises(SettingsError, match="no forecast of chunks by fidelity"):
            forecast_build([tmp_path / "corpus.jsonl"], model=model, options=IndexOptions(chunk_fidelity=0.6))


def test_a_text_without_tokens_has_no_share(model: LLM2Comp) -> None:
    """Some tokenizers drop control characters: a document of nothing else does not end a build."""
    assert reading_share(model.encoder)("") is None
