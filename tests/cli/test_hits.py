"""Search results as text: what is shown of each, how wide, and which words are bold."""

from dataclasses import replace
from typing import Any

import pytest

from llm2comp.cli import hits as module
from llm2comp.cli.hits import describe_score, format_hits, format_times, mark_words
from llm2comp_indexes import Hit, SearchOptions


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")


def hit(id: str = "a.md#2", title: str = "Tides", text: str = "The moon pulls the sea.", **metadata: Any) -> Hit:
    return Hit(id, 0.51234, title, text, metadata)


def bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[22m"


def test_a_result_has_rank_score_title_id_and_text() -> None:
    assert format_hits([hit(), hit("b", "", "Bread.")]) == (
        "  1   0.512 Tides\n            a.md#2\n            The moon pulls the sea.\n  2   0.512 b\n            Bread."
    )


def test_metadata_is_shown_if_it_is_asked_for() -> None:
    metadata = {"year": 2020, "place": {"name": "X\x1b[31m"}, "tags": ["ü"], "none": None}
    assert "2020" not in format_hits([hit(**metadata)])
    fields = ("tags", "year", "place.name", "missing", "none", "year.month")
    line = format_hits([hit(**metadata)], fields=fields).splitlines()[2]
    assert line == '            tags: ["ü"], year: 2020, place.name: X\N{REPLACEMENT CHARACTER}[31m'


def test_lines_keep_to_the_width_of_the_terminal() -> None:
    result = format_hits([hit("i" * 200, "t" * 200, "word " * 500, note="n" * 200)], fields=("note",))
    assert all(len(line) <= 60 for line in result.splitlines())
    assert len(result.splitlines()) == 5  # two of the text
    assert result.endswith(" …")


@pytest.mark.parametrize(
    ("question", "text", "expected"),
    [
        ("Moon", "the moon, MOON!", f"the {bold('moon')}, {bold('MOON')}!"),
        ("parsing dates", "parse a date", f"{bold('parse')} a {bold('date')}"),
        ("how is the moon", "how is it on the moon", f"how is it on the {bold('moon')}"),
        ("who is it", "who is it?", " ".join(bold(word) for word in ("who", "is", "it")) + "?"),
        ("art", "start part arts", f"start part {bold('arts')}"),
        ("", "moon", "moon"),
        ("?", "moon?", "moon?"),
    ],
)
def test_words_of_the_question_are_marked(question: str, text: str, expected: str) -> None:
    assert mark_words(text, question) == expected


def test_only_titles_and_texts_are_marked_and_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    results = [hit(year=1), hit("b", "One and 1")]
    assert "\x1b" not in format_hits(results, question="1 tides", fields=("year",))
    monkeypatch.setattr(module, "_has_styles", lambda: True)
    lines = format_hits(results, question="1 tides", fields=("year",)).splitlines()
    assert lines[0] == f"  1   0.512 {bold('Tides')}"
    assert lines[2] == "            year: 1"
    assert lines[4] == f"  2   0.512 One and {bold('1')}"


def test_marks_do_not_change_where_lines_break(monkeypatch: pytest.MonkeyPatch) -> None:
    result = hit(text="moon tides sea " * 50)
    plain = format_hits([result], question="moon")
    monkeypatch.setattr(module, "_has_styles", lambda: True)
    assert format_hits([result], question="moon").replace("\x1b[1m", "").replace("\x1b[22m", "") == plain


def test_times_of_encoding_and_search_stand_apart() -> None:
    assert format_times(0.05, 0.03) == "search 20 ms, encode 30 ms"
    assert format_times(0.05, 0.0) == "search 50 ms"  # by words: nothing was encoded


def test_a_score_says_what_it_is() -> None:
    assert describe_score(SearchOptions()) == "cosine of question and text"
    assert describe_score(SearchOptions(mode="bm25")) == "BM25"
    scaled = "cosine and BM25, each scaled to 0..1, in the ratio"
    assert describe_score(SearchOptions(mode="hybrid")) == f"{scaled} 0.3 to 0.7"
    assert describe_score(SearchOptions(mode="hybrid", weights=(1, 2.5))) == f"{scaled} 1 to 2.5"
    ranks = SearchOptions(mode="hybrid", fusion="ranks", weights=(1.0, 0.5))
    assert describe_score(ranks) == "1 / (60 + rank by vectors) + 0.5 / (60 + rank by words)"
    assert describe_score(replace(ranks, rescore="maxsim")) == "MaxSim, a sum of the best cosines of memory tokens"
