"""Filters: Python as the reference, missing values, types, and error messages."""

import random
from collections.abc import Callable
from operator import eq, ge, gt, le, lt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp.corpus.documents import Document
from llm2comp.errors import SettingsError
from llm2comp_indexes.filters.parse import parse_where
from llm2comp_indexes.format import metadata
from llm2comp_indexes.format.metadata import Metadata, MetadataWriter, open_metadata

Open = Callable[[list[dict[str, Any]]], Metadata]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    monkeypatch.setattr(metadata, "_BATCH_ROWS", 7)

    def write(rows: list[dict[str, Any]]) -> Metadata:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.arrow"
        writer = MetadataWriter(path)
        writer.add(Document(str(number), "", "text", row) for number, row in enumerate(rows))
        assert writer.finish() is not None
        return open_metadata(path, len(rows))

    return write


def match(text: str, rows: Metadata) -> list[int]:
    """Rows that match, after the filter is checked against their fields."""
    where = parse_where(text)
    where.check([rows])
    mask = where.mask(rows, rows.rows)
    assert mask.shape == (rows.rows,)
    assert mask.dtype == np.bool_
    return np.flatnonzero(mask).tolist()


def random_condition(source: random.Random, depth: int = 0) -> str:
    if depth < 3 and source.random() < 0.6:
        left, right = random_condition(source, depth + 1), random_condition(source, depth + 1)
        return source.choice([f"({left} and {right})", f"({left} or {right})", f"not {left}", f"{left} and {right}"])
    year, lang = source.randint(1998, 2012), source.choice(["'de'", "'en'", "'fr'", "'f'", "''"])
    operator = source.choice(["==", "!=", "<", "<=", ">", ">="])
    return source.choice(
        [
            *(
                f"year {operator} {year}",
                f"year {operator} {year}.5",
                f"{year} {operator} year",
                f"lang {operator} {lang}",
                f"score {operator} -0.5",
            ),
            *(
                f"{year} <= year < {year + 4}",
                f"year in ({year}, {year + 1}, 2.5)",
                f"lang not in ['de', {lang}]",
                f"{lang} in lang",
                "'x' in tags",
            ),
            *(
                f"{lang} not in tags",
                "draft",
                "not tags",
                "score",
                "draft == True",
                "draft is False",
                "year",
                "lang",
                "score in {0, 1.5}",
            ),
        ]
    )


def test_documents_that_have_every_field_match_as_in_python(opened: Open) -> None:
    source = random.Random(5)
    rows = [
        {
            "year": source.randint(1998, 2012),
            "lang": source.choice(["en", "de", "fr", ""]),
            "score": source.choice([0, 1, 1.5, -0.5, -2.25]),
            "draft": source.random() < 0.5,
            "tags": source.sample(["x", "y", "de", "f"], source.randint(0, 3)),
        }
        for _ in range(60)
    ]
    columns = opened(rows)
    texts = [random_condition(source) for _ in range(150)]
    for text in texts:
        assert match(text, columns) == [number for number, row in enumerate(rows) if eval(text, {}, row)], text
    assert len({tuple(match(text, columns)) for text in texts}) > 40


ROWS: list[dict[str, Any]] = [
    {"year": 2020, "lang": "en", "tags": ["ml", "ir"], "draft": True},
    {"year": 2021.5, "lang": "de", "draft": False},
    {"year": "2020", "tags": "ml and ir", "publication year": 1999},
    {},
    {"year": None, "lang": "", "tags": [], "class": "b", "journal": {"name": "J", "issue number": 4}},
    {"year": [2020, 7], "tags": [2020, "x"]},
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("year > 2000", [0, 1]),
        ("not year > 2000", [2, 3, 4, 5]),
        ("not (year > 2000 and year < 3000)", [2, 3, 4, 5]),
        ("year == 2020", [0]),
        ("year == '2020'", [2]),
        ("year != 2020", [1, 2, 3, 4, 5]),
        ("year is not None and year != 2020", [1, 2, 5]),
        ("year in (2020, '2020')", [0, 2]),
        ("year not in (2020, '2020')", [1, 3, 4, 5]),
        ("year in (2020, None)", [0, 3, 4]),
        ("2020 in year", [5]),
        ("year is None", [3, 4]),
        ("year == None", [3, 4]),
        ("year is not None", [0, 1, 2, 5]),
        ("lang in ('en')", [0]),
        ("lang in ()", []),
        ("lang < 'en'", [1, 4]),
        ("lang", [0, 1]),
        ("lang is not None and not lang", [4]),
        ("draft", [0]),
        ("not draft", [1, 2, 3, 4, 5]),
        ("draft == False", [1]),
        ("draft in (True, False)", [0, 1]),
        ("'ml' in tags", [0, 2]),
        ("'m' in tags", [2]),
        ("2020 in tags", [5]),
        ("tags", [0, 2, 5]),
        ("tags is None", [1, 3]),
        ('field["publication year"] < 2000', [2]),
        ('field["class"] == "b"', [4]),
        ("journal.name == 'J'", [4]),
        ('field["journal.issue number"] >= 4', [4]),
        ("  year == 2020 \n", [0]),
        ("(year == 2020\n or lang == 'de')", [0, 1]),
        ("year > -1e400", [0, 1]),
        ("year < 1e400", [0, 1]),
    ],
)
def test_missing_values_and_mixed_types(opened: Open, text: str, expected: list[int]) -> None:
    assert match(text, opened(ROWS)) == expected


def test_a_condition_and_its_negation_divide_the_documents(opened: Open) -> None:
    columns = opened(ROWS)
    for text in (
        "year > 2020",
        "lang == 'en'",
        "'ml' in tags",
        "year in (2020, '2020')",
        "draft",
        "year is None",
        "2000 < year < 2021",
    ):
        assert sorted(match(text, columns) + match(f"not ({text})", columns)) == list(range(6))


@pytest.mark.parametrize("number", [2**53 + 1, 2**63 - 1, -(2**63), 2**53])
def test_whole_numbers_are_compared_exactly(opened: Open, number: int) -> None:
    values = [number - 1, number, number + 1]
    columns = opened([{"n": value} for value in values if -(2**63) <= value < 2**63])
    kept = [value for value in values if -(2**63) <= value < 2**63]
    for operator in ("==", "<", "<=", ">", ">="):
        expected = [place for place, value in enumerate(kept) if eval(f"{value} {operator} {number}")]
        assert match(f"n {operator} {number}", columns) == expected
    assert match(f"n in ({number}, {10**30})", columns) == [kept.index(number)]
    assert match(f"n < {10**30} and n > -{10**400}", columns) == list(range(len(kept)))


EDGES = [2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1, 2**63, 2**63 + 1, 2**64, 2**64 + 2049, 10**30, 10**400]
NUMBERS: list[Any] = [sign * edge for edge in EDGES for sign in (1, -1)]
NUMBERS += [float(number) for number in NUMBERS if abs(number) < 10**300] + [0, 0.5, 1e308, -1e308]


def test_numbers_of_any_size_and_type_are_compared_exactly(opened: Open) -> None:
    columns = opened([{"n": number, "ns": [number, "x"], "same": [number]} for number in NUMBERS])
    tests = {"==": eq, "<": lt, "<=": le, ">": gt, ">=": ge}
    for constant in NUMBERS:
        for sign, test in tests.items():
            expected = [place for place, number in enumerate(NUMBERS) if test(number, constant)]
            assert match(f"n {sign} {constant!r}", columns) == expected, (sign, constant)
        same = [place for place, number in enumerate(NUMBERS) if number == constant]
        for text in (f"n in ({constant!r}, 'x')", f"{constant!r} in ns", f"{constant!r} in same"):
            assert match(text, columns) == same, text
        assert match(f"n != {constant!r}", columns) == sorted(set(range(len(NUMBERS))) - set(same))


def test_a_field_that_holds_an_object_is_there(opened: Open) -> None:
    rows: list[dict[str, Any]] = [{"f": {"k": 1}}, {"f": 5}, {"f": {}}, {"f": {"g": {}}}, {"f": None}, {}]
    columns = opened(rows)
    for text, expected in (
        ("f is None", [4, 5]),
        ("f is not None", [0, 1, 2, 3]),
        ("f", [0, 1, 3]),
        ("not f", [2, 4, 5]),
        ("f == 5", [1]),
        ("f != 5", [0, 2, 3, 4, 5]),
        ("'k' in f", [0]),
        ("'g' not in f", [0, 1, 2, 4, 5]),
        ("f.g is not None", [3]),
        ("f.g is None and f is not None", [0, 1, 2]),
        ("f.k == 1", [0]),
    ):
        assert match(text, columns) == expected, text


def test_a_field_that_holds_only_objects_is_known(opened: Open) -> None:
    columns = opened([{"journal": {"name": "J", "issue number": 4}}, {"empty": {}}])
    assert match("journal is None", columns) == [1]
    assert match("empty is not None", columns) == [1]
    with pytest.raises(SettingsError) as failure:
        match("journal == 'J'", columns)
    assert str(failure.value).endswith(
        '"journal" holds objects, and is compared with text: no document can match; the fields within it are: '
        "`journal.issue number`, journal.name"
    )


def test_lists_are_equal_as_in_python(opened: Open) -> None:
    lists: list[Any] = [
        ["x", "y"],
        ["y", "x"],
        ["x"],
        [],
        ["x", 1],
        [1, "x"],
        [1, 2.5],
        [True, False],
        [True, 0],
        [0, True],
    ]
    lists += [[2**53 + 1], [2**53], [2**53, "a"], [None], "xy", {"x": 1}, None, ["x", "y"]]
    columns = opened([{"f": value} for value in lists])
    for constant in [*lists[:13], [1, 0], [1.0, 0.0], [False, 1], [2.0**53]]:
        expected = [place for place, value in enumerate(lists) if value == constant]
        assert match(f"f == {constant!r}", columns) == expected, constant
        assert match(f"{constant!r} != f", columns) == sorted(set(range(len(lists))) - set(expected))
    assert match("f == []", opened([{"f": 1}, {"f": []}, {}])) == [1]
    with pytest.raises(SettingsError, match=r"\[None\] has None in it; expected numbers"):
        parse_where("f == [None]")
    with pytest.raises(SettingsError, match='"f" holds whole numbers, and is compared with lists of texts or lists of'):
        match("f == ['x']", opened([{"f": 1}]))


def test_dates_are_compared_as_iso_texts(opened: Open) -> None:
    columns = opened([{"date": "2023-12-31"}, {"date": "2024-05-01T10:00:00"}, {"date": "2024-06-01"}])
    assert match("'2024-01' <= date < '2024-06'", columns) == [1]


def test_texts_are_compared_by_their_characters(opened: Open) -> None:
    columns = opened([{"t": "é"}, {"t": "z"}, {"t": "🎉"}, {"t": "a\0b"}, {"t": "?"}])
    assert match("t > 'z'", columns) == [0, 2]
    assert match("t == 'a\\0b' or t == '\\ud800'", columns) == [3, 4]


def test_segments_without_the_field_or_without_metadata(opened: Open) -> None:
    first, second = opened([{"year": 2020}] * 3), opened([{"lang": "en"}] * 9)
    where = parse_where("year == 2020 or lang is None")
    where.check([first, None, second])
    assert where.mask(first, 3).tolist() == [True] * 3
    assert where.mask(second, 9).tolist() == [False] * 9
    assert where.mask(None, 2).tolist() == [True] * 2
    assert where.mask(None, 0).shape == (0,)
    assert where.fields == {"year", "lang"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "yaer > 3",
            'no document has the field "yaer"; did you mean "year"\\? The fields are: class, draft, journal, '
            "journal.issue number, journal.name, lang",
        ),
        ("title == 'x'", "id, title and text are not metadata"),
        ("lang > 3", '"lang" holds text, and is compared with'),
        ("'x' in draft", '"draft" holds True or False'),
        ("draft == 1", '"draft" holds True or False, and is compared with'),
        ("not (lang == 'en' and not draft == 'no')", '"draft" holds True or False, and is compared with text'),
    ],
)
def test_filters_that_can_match_nothing_are_refused(opened: Open, text: str, message: str) -> None:
    columns = opened(ROWS)
    with pytest.raises(SettingsError, match=message):
        parse_where(text).check([None, columns])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n is 1", "`is` takes None, True or False; compare with 1 by == or !="),
        ("'x' is not n", "`is` takes None, True or False; compare with 'x' by == or !="),
        ("n < None", "None is neither less nor greater than a value; compare with it by == or !="),
        ("n >= True", "True is neither less nor greater than a value; compare with it by == or !="),
        ('field["o"]["k"] == 1', "field['o']['k'] is no field; a field within a field is written field[\"o.k\"]"),
        ('1 == field["o"].k["j"]', 'a field within a field is written field["o.k.j"]'),
        ('o["k"] in (1, 2)', 'a field within a field is written field["o.k"]'),
        ('not o["k"]', 'a field within a field is written field["o.k"]'),
        ('"x" in o["k"]', 'a field within a field is written field["o.k"]'),
        ('`a b`["k"] is None', 'a field within a field is written field["a b.k"]'),
    ],
)
def test_what_is_nearly_a_filter_is_answered_with_the_way_it_is_written(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match="^where ") as failure:
        parse_where(text)
    assert message in str(failure.value)


@pytest.mark.parametrize(
    ("text", "place"), [("year <", "the end"), ("(year < 3", "character 1"), ("year = 3", "character 6")]
)
def test_a_mistake_is_placed_where_it_is(text: str, place: str) -> None:
    with pytest.raises(SettingsError, match=f" at {place}; "):
        parse_where(text)


def test_names_of_fields_follow_a_full_stop(opened: Open) -> None:
    with pytest.raises(SettingsError, match='no document has the field "nope". The fields are: year$'):
        parse_where("nope == 3").check([opened([{"year": 3}])])


def test_lists_are_looked_into_by_in(opened: Open) -> None:
    with pytest.raises(SettingsError, match='to look into a list: "x" in tags'):
        parse_where("tags == 'x'").check([opened([{"tags": ["x"]}])])
    with pytest.raises(SettingsError, match="no document of this index has metadata"):
        parse_where("year == 3").check([None, None])


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("year = 2020", "year == 2020"),
        ("year >= 2020 AND lang='en' OR NOT draft", "year >= 2020 and lang == 'en' or not draft"),
        ("year <> 2020", "year != 2020"),
        ("year IS NOT NULL and lang is null", "year is not None and lang is None"),
        ("year BETWEEN 2000 AND 2010", "2000 <= year <= 2010"),
        ("lang LIKE '%e%'", "'e' in lang"),
        ("lang NOT LIKE '%e%'", "'e' not in lang"),
        ("lang IN ('en', 'de')", "lang in ('en', 'de')"),
        (
            "draft == true && !(year == 3 || lang == 'A AND B = C')",
            "draft == True and not (year == 3 or lang == 'A AND B = C')",
        ),
        ("class == 'b'", "field[\"class\"] == 'b'"),
    ],
)
def test_habits_of_sql_are_answered_with_the_python_form(text: str, python: str) -> None:
    with pytest.raises(SettingsError) as failure:
        parse_where(text)
    assert str(failure.value).endswith(f"; in Python's syntax: {python}")
    parse_where(python)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "year >",
            "year > 2020)",
            "import os",
            "__import__('os').system('true')",
            "open('x')",
            "year.bit_length() > 3",
            "(lambda: 1)()",
        ),
        *(
            "[x for x in y]",
            "year + 1 > 3",
            "year == 3 if draft else 4",
            "(x := 3)",
            "f'{year}'",
            "year[0] == 1",
            "year > b'x'",
            "year == 3j",
            "year == ...",
        ),
        *(
            "1 == 1",
            "'a' in 'abc'",
            "True",
            "2020",
            "'year' > 3",
            "year == lang",
            "year in lang",
            "year is 2020",
            "year > None",
            "draft > True",
        ),
        *(
            "year in (1, (2, 3))",
            "year in range(3)",
            "year > --1",
            "year; draft",
            "year > 1\nlang",
            "x\0y",
            "*year",
            "await year",
            "yield",
            "None in tags",
        ),
        *(
            "not " * 60 + "draft",
            "(" * 300 + "draft" + ")" * 300,
            "not " * 100_000 + "draft",
            "-" * 100_000 + "1 > year",
            "a." * 20_000 + "b",
        ),
    ],
)
def test_everything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(SettingsError, match="^where ") as failure:
        parse_where(text)
    assert len(str(failure.value)) < 600
    assert "\n" not in str(failure.value)


def test_a_backslash_in_a_text_is_no_warning(opened: Open) -> None:
    assert match(r"path == 'C:\data'", opened([{"path": r"C:\data"}])) == [0]


def test_many_alternatives_are_fast_and_not_too_deep(opened: Open) -> None:
    columns = opened([{"n": number} for number in range(50)])
    assert match(f"n in {tuple(range(0, 200_000, 10))}", columns) == [0, 10, 20, 30, 40]
    assert match(" or ".join(f"n == {number}" for number in range(0, 700, 7)), columns) == list(range(0, 50, 7))
