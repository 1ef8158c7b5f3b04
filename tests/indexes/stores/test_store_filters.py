"""Filters in every store mean what they mean over an index: the same rows, or a refusal in words."""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp.errors import SettingsError
from llm2comp_indexes import SearchOptions, StoreIndex, open_index, open_store_index, push_index
from tests.indexes.stores.conftest import STORES, new_url
from tests.word_encoder import WordEncoder

ODD: list[dict[str, Any]] = [
    {},
    {"year": 0, "lang": "", "tags": [], "flag": False, "mixed": 1, "o": {"p": 1, "q.r": "x"}, "sizes": [1, 2]},
    {"year": 2001, "lang": "en", "tags": ["x"], "flag": True, "mixed": "1", "o": {"p": None}, "sizes": [1.0, 2.5]},
    {"year": 2002, "lang": "EN", "tags": ["x", "y"], "mixed": True, "o": {"p": "1", "s": {"t": 5}}, "sizes": [0]},
    {"year": None, "lang": "über", "tags": ["en", "1"], "mixed": [1, True], "o": {}, "sizes": []},
    {"year": -5, "lang": "it's 100%_", "tags": None, "mixed": {"x": 1}, "both": ["en"], "price": 0.1, "class": 3},
    {"year": 2**40, "lang": "x\\n\u2028z", "mixed": 1.5, "both": "en", "price": 2, "Lang": "other", "two words": 7},
    {"year": 2010, "lang": "zebra", "price": 1e300, "big": 2**70, "a.b": 1, "ﬁeld": "ﬁ", "only": True},
    {"year": 2010, "lang": "null", "price": -0.0, "big": 5, "a.b": 2, "o": {"a": 1}, "mixed": None, "true": "true"},
]
VALUES = ["2001", "0", "0.1", "2.5", "-5", "1", '"en"', '""', '"1"', "True", "False", '"it\'s 100%_"', "1099511627776"]
FIELDS = ["year", "lang", "tags", "flag", "mixed", "sizes", "both", "price"]
FILTERS = [
    *(f"{field} {operator} {value}" for field, value in product(FIELDS, VALUES) for operator in ("==", "!=")),
    *(f"{field} {operator} {value}" for field in ("year", "price", "mixed") for value in ("1", "2001", "2.5", "0.1")
      for operator in ("<", "<=", ">", ">=")),
    *(f"{field} {operator} {value}" for field in ("lang", "both") for value in ('"en"', '"EN"', '"z"', '"ü"')
      for operator in ("<", "<=", ">", ">=")),
    *FIELDS, *(f"not {field}" for field in FIELDS), *(f"{field} is None" for field in FIELDS),
    *(f"{field} is not None" for field in FIELDS), "o", "o.p", "o.p is None", "o.p == 1", 'o.p == "1"', "o.s.t >= 5",
    *(f"{value} in {field}" for field, value in product(("tags", "lang", "sizes", "both", "mixed", "o"), VALUES)),
    *(f"{value} not in {field}" for field, value in product(("tags", "lang"), ('"en"', '"x"', '"100%"'))),
    "year in ()", "year not in ()", "lang in ()", "not (lang in ())", 'lang == "a\\0b"', 'lang == "\\x01"',
    'lang == "tab\\t"', 'lang != "new\\nline"',
    'year in (2001, 2010, None)', 'lang in ("en", "EN")', 'lang not in ("en", "", "zebra")', "mixed in (1, True)",
    'tags == ["x", "y"]', "tags == []", "sizes == [1, 2.5]", "sizes == [True, 2]", "mixed == [1, 1]", '"p" in o',
    'year >= 2001 and not (lang == "en" or "y" in tags)', "1 < year <= 2010 and price is None", "flag is True",
    'not (year > 2000 and lang > "a") or flag', "`two words` == 7", "`class` == 3", "`a.b` == 2", 'Lang == "other"',
    'ﬁeld == "ﬁ"', "big == 5", "big > 5", "only", 'true == "true"', 'lang == "null"', 'lang == "x\\\\n\u2028z"',
]  # fmt: skip
MOST_REFUSED = {"postgresql": 0, "lancedb": 0.45, "qdrant+file": 0.6, "milvus": 0.8}
"""Share of the filters above that a store may refuse; most are on fields of several types, which few corpora have."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from llm2comp_indexes import build_index
    from tests.small_indexes import write_corpus

    root = tmp_path_factory.mktemp("odd")
    rows = [{"_id": f"d{number}", "text": f"bread n{number}", **fields} for number, fields in enumerate(ODD)]
    build_index([write_corpus(root, rows)], root / "idx", model=WordEncoder())
    return root / "idx"


@pytest.fixture(scope="module", params=STORES)
def stored(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, StoreIndex]]:
    """The kind of a store, and its table of the rows."""
    url = new_url(request, tmp_path_factory.mktemp("stored"))
    push_index(folder, url)
    with open_store_index(url, model=WordEncoder()) as index:
        yield request.param, index


def test_filters_let_the_same_rows_through(stored: tuple[str, StoreIndex], folder: Path) -> None:
    kind, match = stored
    refused: list[str] = []
    wrong: list[Any] = []
    answered = 0
    with open_index(folder, model=WordEncoder()) as index:
        for text in FILTERS:
            expected, reason = answer(index, text)
            rows, why = answer(match, text)
            if reason:  # a type that no document has in this field
                assert why == reason
                continue
            answered += 1
            if why:
                assert re.fullmatch(r"where: .* cannot .*|.*one JSON text.*", why)
                refused.append(text)
            elif rows != expected:
                wrong.append((text, sorted(rows), sorted(expected)))
    assert not wrong
    assert answered > 200
    assert len(refused) <= MOST_REFUSED[kind] * answered, refused


def answer(index: Any, text: str) -> tuple[set[str], str]:
    """Ids that the filter lets through, or why it cannot be asked."""
    query = np.full((1, 32), 0.1, np.float32)
    try:
        [hits] = index.search(["?"], k=50, options=SearchOptions(where=text), vectors=query)
    except SettingsError as error:
        return set(), str(error)
    return {hit.id for hit in hits}, ""


def test_an_unknown_field_is_named_with_those_there_are(stored: tuple[str, StoreIndex]) -> None:
    rows, why = answer(stored[1], "yeer > 2000")
    assert not rows
    assert 'no document has the field "yeer"; did you mean "year"?' in why


def test_texts_in_filters_are_data(stored: tuple[str, StoreIndex]) -> None:
    """No text of a filter is read as SQL."""
    assert answer(stored[1], 'lang == "\' OR true --"') == (set(), "")
    assert answer(stored[1], 'lang == "it\'s 100%_"') == ({"d5"}, "")
    assert answer(stored[1], "`x' OR true --` == 1")[1]
