"""Pairs from WordNet: words and examples ask for the right definition, negatives define something else."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import CorpusError
from llm2comp.training.pairs.derive import derive_pairs
from llm2comp.training.pairs.settings import Pair, PairSettings
from llm2comp.training.pairs.wordnet import wordnet_pairs

LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
NOUNS = (
    "00000100 03 n 01 vehicle 0 000 | a conveyance that transports people or goods\n"
    "00000200 03 n 04 lorry 0 motor_truck 0 truck 0 van 1 001 @ 00000100 n 0000 | a large car that carries loads; "
    '"they loaded the lorry with stones"; "it was hauled away"\n'
    "00000300 03 n 01 bicycle 0 001 @ 00000100 n 0000 | a vehicle of two wheels, moved by feet\n"
    "00000400 03 n 01 van 2 000 | the leading part of an army on the march\n"
    "00000500 03 n 01 season 0 000 | one of the four parts of a year\n"
    '00000600 03 n 01 spring 0 001 @ 00000500 n 0000 | the season in which plants grow; "the spring came late"\n'
    "00000700 03 n 01 spring 2 001 @ 00000100 n 0000 | a conveyance that transports people or goods;\n"
    "00000800 18 n 01 Ford 0 001 @i 00000900 n 0000 | maker of motor cars in Detroit (1863-1947)\n"
    "00000900 18 n 01 maker 0 000 | one who makes\n"
)
ADJECTIVES = (
    '00000100 00 a 01 fast(p) 0 001 & 00000200 a 0000 | of a clock that shows a later time; "my watch is fast"\n'
    '00000200 00 s 01 fast 0 000 | moving or acting with speed; "a fast car"; "fast"\n'
)
VERB = (
    "00000100 38 v 02 go_on 0 proceed 0 001 @ 00000150 v 0000 01 + 02 00 | move ahead in time or space; "
    '"We proceeded to the river"\n'
)
ADVERBS = (
    '00000100 02 r 01 swiftly 0 000 | in a swift manner; "she ran swiftly home"\n'
    "00000200 02 r 01 swiftly 1 000 | in a very swift and sudden manner\n"
)
PLAIN: dict[str, Any] = {"lowercase": 0, "unpunctuated": 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, lines in (("noun", NOUNS), ("verb", VERB), ("adj", ADJECTIVES), ("adv", ADVERBS)):
        (tmp_path / f"data.{part}").write_text(LICENCE + lines)
    return tmp_path


def pairs_of(folder: Path, kind: str, **changes: Any) -> dict[str, list[Pair]]:
    """Pairs of a kind by their positive."""
    pairs: dict[str, list[Pair]] = {}
    for pair in wordnet_pairs(str(folder), PairSettings(wordnet=str(folder), **{**PLAIN, **changes})):
        if pair.kind == kind:
            pairs.setdefault(pair.positive, []).append(pair)
    return pairs


def test_words_ask_for_their_definition(folder: Path) -> None:
    pairs = pairs_of(folder, "words-definition")
    queries = {
        "a conveyance that transports people or goods": "vehicle",
        "a large car that carries loads": "lorry, motor truck, truck",
        "a vehicle of two wheels, moved by feet": "bicycle",
        "one of the four parts of a year": "season",
        "the season in which plants grow": "spring (season)",
        "maker of motor cars in Detroit (1863-1947)": "Ford",
        "move ahead in time or space": "go on, proceed",
    }
    assert pairs.keys() == queries.keys()
    for definition, words in queries.items():
        (pair,) = pairs[definition]
        assert words in pair.query
        assert len(pair.query.split()) <= len(words.split()) + 3
    assert pairs["maker of motor cars in Detroit (1863-1947)"][0].source == "n 00000800"


def test_negative_is_a_definition_under_the_same_wider_word(folder: Path) -> None:
    negatives = {positive: pair.negative for positive, (pair,) in pairs_of(folder, "words-definition").items()}
    conveyance = "a conveyance that transports people or goods"
    assert negatives["a large car that carries loads"] in ("a vehicle of two wheels, moved by feet", conveyance)
    assert negatives["a vehicle of two wheels, moved by feet"] in ("a large car that carries loads", conveyance)
    assert negatives["the season in which plants grow"] is None
    assert negatives[conveyance] is None


def test_example_asks_for_the_meaning_of_the_word_in_it(folder: Path) -> None:
    pairs = pairs_of(folder, "example-definition")
    examples = {
        "a large car that carries loads": ("lorry", "they loaded the lorry with stones", None),
        "the season in which plants grow": (
            "spring",
            "the spring came late",
            "a conveyance that transports people or goods",
        ),
        "move ahead in time or space": ("proceed", "We proceeded to the river", None),
        "of a clock that shows a later time": ("fast", "my watch is fast", "moving or acting with speed"),
        "moving or acting with speed": ("fast", "a fast car", "of a clock that shows a later time"),
        "in a swift manner": ("swiftly", "she ran swiftly home", None),  # the other meaning has all words of this one
    }
    assert pairs.keys() == examples.keys()
    for definition, (word, example, negative) in examples.items():
        (pair,) = pairs[definition]
        assert example in pair.query
        assert pair.query.count(word) == example.count(word) + 1
        assert pair.negative == negative


def test_limits_turn_kinds_off(folder: Path) -> None:
    assert not pairs_of(folder, "example-definition", limits={"example-definition": 0})
    assert not pairs_of(folder, "words-definition", limits={"words-definition": 0})


def test_evaluation_texts_are_refused_and_pairs_counted(folder: Path) -> None:
    (folder / "eval.jsonl").write_text(json.dumps({"text": "the season in which plants GROW"}) + "\n")
    settings = PairSettings(wordnet=str(folder), excluded=(str(folder / "eval.jsonl"),))
    assert derive_pairs(settings, folder / "out") == {"example-definition": 5, "words-definition": 6}
    refused = json.loads((folder / "out" / "pairs.json").read_text())["refused"]
    assert refused == {"example-definition": 1, "words-definition": 1}


def test_other_folders_are_refused_in_one_line(folder: Path) -> None:
    with pytest.raises(CorpusError, match=r"elsewhere: no file data\.noun; expected the folder of WordNet"):
        pairs_of(folder / "elsewhere", "words-definition")
    (folder / "data.verb").write_text(LICENCE + "00000100 38 v 02 go_on 0 | too few words\n")
    with pytest.raises(CorpusError, match=r"data\.verb:2: not a synset in WordNet's format"):
        pairs_of(folder, "words-definition")
    (folder / "data.verb").unlink()
    with pytest.raises(CorpusError, match=r"data\.verb: no such file"):
        pairs_of(folder, "words-definition")
