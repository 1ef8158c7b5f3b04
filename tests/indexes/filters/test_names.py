"""Names of fields in filters: any name can be written, and each stands for itself alone."""

import json
import keyword
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llm2comp.corpus.documents import Document
from llm2comp.errors import SettingsError
from llm2comp_indexes.filters.names import quote_name, unquote_name
from llm2comp_indexes.filters.parse import parse_where
from llm2comp_indexes.format.metadata import MetadataWriter, open_metadata

MICRO, MU = "dose_\u00b5g", "dose_\u03bcg"
KEYWORDS = [name for name in keyword.kwlist if name not in ("None", "True", "False")]
names = st.one_of(
    st.text(min_size=1, max_size=8),
    st.text(alphabet="a\u00b5\u03bc\ufb01\u212b \t\n\r.-`'\"\\#x1_[](){}:,=<>\0", min_size=1, max_size=8),
    st.sampled_from(["year", "field", "class", "x y", "a.b", "ﬁeld", "\ud800", "None", *KEYWORDS]),
)
quickly = settings(max_examples=100, deadline=None, derandomize=True)


def match(text: str, rows: list[dict[str, Any]]) -> list[int]:
    """The rows that match, once the filter is found fit for them."""
    with tempfile.TemporaryDirectory() as folder:
        writer = MetadataWriter(Path(folder) / "metadata.arrow")
        writer.add(Document(str(number), "", "text", row) for number, row in enumerate(rows))
        writer.finish()
        columns = open_metadata(Path(folder) / "metadata.arrow", len(rows))
        where = parse_where(text)
        where.check([columns])
        matches: list[int] = np.flatnonzero(where.mask(columns, len(rows))).tolist()
        return matches


@pytest.mark.parametrize("name", [MICRO, MU, "ﬁeld_ﬁ", "field_fi", "Å_\u212b", "na\u0308me", "näme", "größe", "名前"])
def test_a_name_is_taken_to_the_character(name: str) -> None:
    twin = next((other for other in (MICRO, MU, "Å_Å", "näme", "na\u0308me") if other != name), "")
    rows = [{name: 5}, {twin: 5}, {unicodedata.normalize("NFKC", name) + "_": 5}]
    assert match(f"{name} == 5", rows) == [0]
    assert match(f"3 < {name} < 7 and {name}", rows) == [0]
    assert match(f'{name} == 5 or "x" in {twin} or {twin} in (5,)', [*rows, {twin: "x"}]) == [0, 1, 3]


def test_a_twin_that_no_document_has_is_named_as_written() -> None:
    with pytest.raises(SettingsError) as failure:
        match(f"{MICRO} > 3", [{MU: 5}])
    assert f'no document has the field "{MICRO}"; did you mean "{MU}"?' in str(failure.value)


@quickly
@given(name=names, kept=st.booleans())
def test_any_name_can_be_quoted(name: str, kept: bool) -> None:
    twin = unicodedata.normalize("NFKC", name)
    rows: list[dict[str, Any]] = [{name: 1}, {name: 2}, {}, {"other": 1}]
    if kept and twin != name:
        rows.append({twin: 1})
    stored = name.encode("utf-8", "replace").decode()
    for written in (f"field[{name!r}]", f"field[{json.dumps(stored, ensure_ascii=False)}]", quote_name(stored)):
        assert parse_where(f"{written} == 1").fields == {stored}
        assert match(f"{written} == 1", rows) == [0]
        assert match(f"( not {written} >= 2 ) and {written} is not None", rows) == [0]
    assert unquote_name("`" + name.replace("`", "``") + "`") == name


@quickly
@given(name=st.text(st.characters(categories=("L", "Nl", "Mn")), min_size=1, max_size=6).map("a{}".format))
def test_a_name_of_pythons_kind_needs_no_quotes(name: str) -> None:
    assume(name.isidentifier() and not keyword.iskeyword(unicodedata.normalize("NFKC", name)))
    for text in (f"{name} == 1", f"\n  {name} == 1 ", f"'`' != {name} and {name} in (1, '`')"):
        assert parse_where(text).fields == {name}


@quickly
@given(outer=names, inner=names)
def test_names_within_names(outer: str, inner: str) -> None:
    stored, within = (name.encode("utf-8", "replace").decode() for name in (outer, inner))
    text = f"`{stored.replace('`', '``')}` . `{within.replace('`', '``')}` == 1"
    assert match(text, [{outer: {inner: 1}}, {outer: {inner: 2}}, {}]) == [0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`publication year` >= 2000", [0]),
        ("`publication year`<2000", [1]),
        ("not`publication year`", [2, 3]),
        ("1990<`publication year`<2010 and(`prix-€` is None or`publication year`)", [0, 1]),
        ("`prix-€` == 4.5", [2]),
        ("journal.`issue number` == 4", [3]),
        ("`journal`.`issue number` == 4", [3]),
        ("`journal.issue number` in (4, 5)", [3]),
        ('field["journal.issue number"] == 4', [3]),
        ("`class` == '`a`'", [2]),
        ("`class` == '`a`' # as `class`", [2]),
        ("`a``b` == 1 or `it's` == 2", [0, 1]),
        ("('x' in\n`tags, all`\nand `ﬁn` == 3)", [3]),
        ("ﬁn == 3 and ﬁn . x is None", [3]),
    ],
)
def test_quoted_names_stand_wherever_names_do(text: str, expected: list[int]) -> None:
    rows = [
        {"publication year": 2001, "a`b": 1},
        {"publication year": 1999, "it's": 2},
        {"prix-€": 4.5, "class": "`a`"},
        {"journal": {"issue number": 4}, "tags, all": ["x"], "ﬁn": 3, "fin": 4, "ﬁn.x": None},
    ]
    if ". x" in text:
        rows.append({"ﬁn": {"x": 1}})
    assert match(text, rows) == expected


@pytest.mark.parametrize(
    "text", ["`year == 3", "year` == 3", "`` == 3", "year == `", "`a` `b`", "`a`b == 3", "a`b` == 3"]
)
def test_a_lone_backtick_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(SettingsError, match="^where ") as failure:
        parse_where(text)
    assert "\n" not in str(failure.value)


def test_messages_write_names_as_a_filter_takes_them() -> None:
    with pytest.raises(SettingsError, match='to look into a list: "x" in `all tags`'):
        match("`all tags` == 'x'", [{"all tags": ["x"]}])
    with pytest.raises(SettingsError, match="a name that is not one word stands in backticks"):
        parse_where("all tags == 'x'")
    with pytest.raises(SettingsError, match="a field of that name is written `all tags`"):
        parse_where("'all tags' == 'x'")
    with pytest.raises(SettingsError, match=r"`all tags` \+ 1 is no value|`all tags` \+ 1"):
        parse_where("`all tags` + 1 > 2")
    with pytest.raises(SettingsError) as failure:
        parse_where("`pub year` BETWEEN 2000 AND 2010 and `all tags` LIKE '%x%'")
    assert str(failure.value).endswith("in Python's syntax: 2000 <= `pub year` <= 2010 and 'x' in `all tags`")


def test_alternatives_on_one_field_need_one_type_that_fits() -> None:
    rows = [{"n": 1}, {"n": 2}]
    assert match("n == 1 or n == 'one'", rows) == [0]
    with pytest.raises(SettingsError, match="holds whole numbers, and is compared with True or False or text"):
        match("n == 'one' or n == True", rows)
    with pytest.raises(SettingsError, match="holds whole numbers"):
        match("n == 1 and n == 'one'", rows)
