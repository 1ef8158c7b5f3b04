"""BM25 over stems: what they find, that an index keeps its language, and what is said when it cannot."""

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import IndexFolderError, LLM2CompError, SettingsError
from llm2comp_indexes import (
    IndexOptions,
    SearchOptions,
    add_documents,
    build_index,
    forecast_build,
    merge_index,
    open_index,
    rebuild_index,
)
from llm2comp_indexes.format.files import check_content
from llm2comp_indexes.format.manifest import read_manifest
from llm2comp_indexes.lexical import searcher as lexical
from llm2comp_indexes.lexical.searcher import open_lexical
from llm2comp_indexes.lexical.stems import word_splitter
from llm2comp_indexes.lexical.tokenizer import split_words
from llm2comp_indexes.lexical.writer import STEMS, LexicalWriter
from tests.word_encoder import WordEncoder

pytest.importorskip("Stemmer", reason="needs the extra stem")

TEXTS = ["Indexing a corpus", "two indexes", "a corpus of houses", ""]
ENGLISH = IndexOptions("flat", hybrid=True, language="english")


def written(folder: Path, language: str | None = "english") -> Path:
    with LexicalWriter(folder, language) as writer:
        writer.add(TEXTS)
        for name, record in writer.finish().items():
            check_content(folder / name, record)
    return folder


def found(folder: Path, query: str, language: str | None = "english") -> list[int]:
    """Rows with a word of the query, in order."""
    hits = open_lexical(folder, len(TEXTS), language).search([query], len(TEXTS))
    return sorted(int(row) for row in hits.rows[0] if row >= 0)


def test_a_word_finds_its_other_forms(tmp_path: Path) -> None:
    stems, words = written(tmp_path / "stems"), written(tmp_path / "words", None)
    assert found(stems, "index") == [0, 1]
    assert found(stems, "HOUSING") == [2]
    assert found(words, "index", None) == []
    assert found(words, "indexes", None) == [1]


@pytest.mark.parametrize(
    ("language", "text", "stems"),
    [
        # of Snowball's own vocabularies
        ("english", "consignment knightly generate", ["consign", "knight", "generat"]),
        ("german", "Häuser aufeinander", ["haus", "aufeinand"]),
        ("french", "continuellement", ["continuel"]),
        ("russian", "вампиры", ["вампир"]),
    ],
)
def test_stems_are_those_of_snowball(language: str, text: str, stems: list[str]) -> None:
    assert word_splitter(language)(text) == stems


def test_numbers_and_scripts_without_spaces_stay() -> None:
    assert word_splitter("english")("4711 東京") == split_words("4711 東京")


def test_threads_stem_at_the_same_time() -> None:
    split, wrong = word_splitter("english"), []
    texts = ["running indexes", "houses of cards", "generators"]
    expected = [split(text) for text in texts]

    def compare() -> None:
        wrong.extend(number for number in range(2000) if split(texts[number % 3]) != expected[number % 3])

    threads = [threading.Thread(target=compare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_index_of_another_language_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "bm25")
    with pytest.raises(IndexFolderError, match="not that of german stems"):
        open_lexical(folder, len(TEXTS), "german")
    (folder / STEMS).unlink()
    with pytest.raises(IndexFolderError, match=STEMS):
        open_lexical(folder, len(TEXTS), "english")


def test_stems_of_another_version_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = written(tmp_path / "bm25")
    (folder / STEMS).write_text(json.dumps({"language": "english", "pystemmer": "1.0.0"}))
    lexical._compare_versions.cache_clear()
    for _ in range(2):
        assert found(folder, "index") == [0, 1]
    [message] = [record.getMessage() for record in caplog.records]
    assert "english stems of PyStemmer 1.0.0" in message


@pytest.mark.parametrize(
    ("language", "message"),
    [
        ("English", "do you mean english"),
        ("de", "'de'; expected its name in English: arabic"),
        ("", "in English: arabic"),
    ],
)
def test_an_unknown_language(language: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        word_splitter(language)


def test_an_unknown_language_is_refused_before_a_model_is_loaded(build: Callable[..., Path], tmp_path: Path) -> None:
    """And a device of an unknown name; the model that is named is not there either, and nobody looks for it."""
    folder = build(ENGLISH)
    klingon = IndexOptions("flat", hybrid=True, language="klingon")
    missing = tmp_path / "no-model"
    commands: list[Callable[..., Any]] = [
        lambda **given: build_index([{"text": "a corpus"}], tmp_path / "new", model=missing, **given),
        lambda **given: forecast_build([{"text": "a corpus"}], model=missing, **given),
        lambda **given: rebuild_index(folder, model=missing, **given),
        lambda **given: merge_index(folder, **given),
    ]
    for command in commands:
        with pytest.raises(SettingsError, match="language is 'klingon'"):
            command(options=klingon)
        with pytest.raises(SettingsError, match="device is 'tpu'"):
            command(options=ENGLISH, device="tpu")


def test_a_language_without_bm25() -> None:
    with pytest.raises(SettingsError, match="without hybrid"):
        IndexOptions(language="english")


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Path]:
    """Builds an index of three texts."""

    def build(options: IndexOptions) -> Path:
        corpus = tmp_path / "corpus.jsonl"
        lines = [json.dumps({"id": str(number), "text": text}) for number, text in enumerate(TEXTS[:3])]
        corpus.write_text("\n".join(lines))
        build_index([corpus], tmp_path / "idx", model=WordEncoder(), options=options)
        return tmp_path / "idx"

    return build


def ids(folder: Path, query: str, mode: Any = "bm25") -> set[str]:
    encoder = WordEncoder()
    with open_index(folder, model=encoder) as index:
        [hits] = index.search([query], 3, options=SearchOptions(mode=mode))
    return {hit.id for hit in hits}


def test_an_index_keeps_its_language(build: Callable[..., Path], tmp_path: Path) -> None:
    """Documents added later are stemmed too, and merged with the others."""
    folder = build(ENGLISH)
    assert ids(folder, "index") == {"0", "1"}
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps({"id": "9", "text": "reindexed, an index"}))
    add_documents(folder, [more], model=WordEncoder())
    assert ids(folder, "indexing") == {"0", "1", "9"}
    merge_index(folder)
    assert read_manifest(folder).options == ENGLISH
    assert ids(folder, "indexing") == {"0", "1", "9"}


def test_a_merge_and_a_rebuild_change_the_language(build: Callable[..., Path]) -> None:
    folder = build(IndexOptions("flat", hybrid=True))
    assert ids(folder, "index") == set()
    merge_index(folder, options=ENGLISH)
    assert ids(folder, "index") == {"0", "1"}
    rebuild_index(folder, model=WordEncoder(), options=IndexOptions("flat", hybrid=True))
    assert ids(folder, "index") == set()


def test_without_the_stemmer_vectors_are_still_searched(
    build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build(ENGLISH)
    word_splitter.cache_clear()
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    assert ids(folder, "corpus", mode="dense")
    with pytest.raises(LLM2CompError, match=r"BM25 with language english needs Stemmer.*llm2comp\[stem\]"):
        ids(folder, "corpus")
    with pytest.raises(LLM2CompError, match=r"llm2comp\[stem\]"):
        merge_index(folder, options=IndexOptions("flat", hybrid=True, language="german"))
