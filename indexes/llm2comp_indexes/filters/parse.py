"""Filters on metadata in Python's syntax: parsed by `ast`, never executed."""

import ast
import difflib
import json
import keyword
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import SettingsError
from llm2comp_indexes.filters.conditions import (
    All,
    Among,
    Any,
    Compare,
    Condition,
    Contains,
    Not,
    Operator,
    Present,
    SameList,
    Truth,
    Value,
    encodable,
    find_alternatives,
    find_tests,
)
from llm2comp_indexes.filters.names import QUOTED, parse_expression, quote_name, unquote_name
from llm2comp_indexes.format.columns import Kind
from llm2comp_indexes.format.metadata import Metadata

__all__ = ["Where", "parse_where"]

_EXAMPLE = 'year >= 2020 and lang in ("en", "de") and not draft'
_QUOTING = "a name that is not one word stands in backticks"
_DEEPEST = 50  # levels of brackets and `not`
_LONGEST_HINT = 2000  # characters; the SQL patterns take quadratic time
_OPERATORS: dict[type[ast.cmpop], Operator] = {ast.Eq: "==", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
_KINDS: dict[Kind, str] = {
    **{"integer": "whole numbers", "large": "whole numbers", "number": "numbers", "flag": "True or False"},
    **{"text": "text", "texts": "lists of texts", "numbers": "lists of numbers", "flags": "lists of True and False"},
    **{"items": "lists of several types", "object": "objects"},
}


@dataclass(frozen=True, slots=True)
class Where:
    """A filter; made by `parse_where`.

    Attributes:
        text: The text that was parsed, or another form of it, for messages.
        condition: The condition that it states.
        name: What messages call it.
        allow_unknown: Whether a field that no document has counts as missing in all, instead of being an error.
    """

    text: str
    condition: Condition
    name: str = "where"
    allow_unknown: bool = False

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields it tests."""
        return frozenset(test.field for test in find_tests(self.condition))

    def mask(self, metadata: Metadata | None, rows: int) -> NDArray[np.bool_]:
        """Mask of the rows that match, (rows,). A field that the segment does not have counts as missing in all rows.

        Raises:
            IndexFolderError: The metadata was altered.
        """
        blocks = metadata.blocks if metadata else ()
        masks = [self.condition.mask(block) for block in blocks] or [np.broadcast_to(self.condition.mask(None), rows)]
        return np.concatenate(masks)

    def check(self, segments: Iterable[Metadata | None]) -> None:
        """Raises SettingsError if no segment has a tested field, or none has values of the type it is compared with."""
        present = [metadata for metadata in segments if metadata]
        if not self.allow_unknown and (lines := self.find_unknown(present)):
            raise SettingsError(f"{self.name} {_cut(self.text)}: {lines[0]}")
        known = _find_kinds(present)
        for tests in find_alternatives(self.condition):
            test = tests[0]
            expected = frozenset(kind for each in tests for kind in each.kinds())
            if test.field in known and not known[test.field] & expected:
                raise SettingsError(
                    f'{self.name} {_cut(self.text)}: "{test.field}" holds {_name_kinds(known[test.field], " and ")}, '
                    f"and is compared with {_name_kinds(expected, ' or ')}: no document can match"
                    f"{'' if self.allow_unknown else _suggest_form(test.field, known)}"
                )

    def find_unknown(self, segments: Iterable[Metadata | None]) -> list[str]:
        """A line for each tested field that no document has, with the fields there are."""
        present = [metadata for metadata in segments if metadata]
        known = _find_kinds(present)
        cut = any(metadata.left_out for metadata in present)
        more = " (fields beyond the first 1,000 are not kept)" if cut else ""
        fields = dict.fromkeys(test.field for test in find_tests(self.condition) if test.field not in known)
        return [f'no document has the field "{field}"{_suggest(field, known)}{more}' for field in fields]


def _find_kinds(segments: Iterable[Metadata]) -> dict[str, set[Kind]]:
    """Types of the values of each field."""
    known: dict[str, set[Kind]] = {}
    for metadata in segments:
        for field, kinds in metadata.fields.items():
            known.setdefault(field, set()).update(kinds)
    return known


def _name_kinds(kinds: Iterable[Kind], joined: str) -> str:
    return joined.join(dict.fromkeys(name for kind, name in _KINDS.items() if kind in kinds))


def _suggest_form(field: str, known: dict[str, set[Kind]]) -> str:
    """How to look into the lists or objects, if the field holds nothing else."""
    if known[field] == {"object"}:
        inner = [quote_name(name) for name in sorted(known) if name.startswith(f"{field}.")]
        return f"; the fields within it are: {_list_names(inner)}" if inner else ""
    lists = known[field] <= {"texts", "numbers", "flags", "items"}
    return f'; to look into a list: "x" in {quote_name(field)}' if lists else ""


def _list_names(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _suggest(field: str, known: dict[str, set[Kind]]) -> str:
    if not known:
        return "; no document of this index has metadata to filter by"
    reserved = f"llm2comp_{field}"  # what version 0.1.0 called document and chunk
    near = [reserved] if reserved in known else difflib.get_close_matches(field, known, 1)
    listed = _list_names(sorted(known))
    note = " (id, title and text are not metadata)" if field in ("id", "title", "text") else ""
    return (f'; did you mean "{near[0]}"?' if near else ".") + f" The fields are: {listed}{note}"


def parse_where(text: str) -> Where:
    """The filter that the text states: conditions on metadata, joined by `and`, `or`, `not` and brackets.

    - `year >= 2020`, `2000 <= year < 2010`, `lang == "en"`, `lang != "en"`, `lang in ("en", "de")`, `lang not in (...)`
    - `draft`: present, and neither False, 0 nor empty; `not draft`: all others
    - `"x" in tags`: a list contains "x", an object has that name, or a text contains it as a substring (case-sensitive)
    - `tags == ["x", "y"]`: the same items in the same order
    - `year is None`, `year is not None`: documents without and with a value, which may be an object
    - `journal.name`: a nested field
    - a name in backticks, or `field["publication year"]`: a field whose name is a keyword or no Python name; within
      backticks, a backtick is doubled

    A name is the field's to the character: no Unicode normalisation, so `µ` (micro sign) is not `μ` (Greek letter).

    Dates are texts (ISO): `date >= "2024-05"` compares by characters. Numbers are compared exactly. Numbers and texts
    are never equal, and none is less than the other. A condition is true or false, never unknown: a document without
    the field fulfils no `==`, `<`, `in` and so on; `not`, `!=` and `not in` are true exactly if their opposite is
    false, so they also match documents without the field (to exclude those: `year is not None and year != 2020`).

    Raises:
        SettingsError: The text is not a filter; for SQL syntax, the message has the Python form.
    """
    try:
        return Where(text, _parse(text))
    except SettingsError as error:
        hint = ""
        if len(text) <= _LONGEST_HINT and (rewritten := _from_sql(text)) != text:
            try:
                _parse(rewritten)
                hint = f"; in Python's syntax: {rewritten}"
            except SettingsError:
                pass
        raise SettingsError(
            f"where {_cut(text)}: {error}{hint or f'; expected conditions such as: {_EXAMPLE}; {_QUOTING}'}"
        ) from None


def _parse(text: str) -> Condition:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's advice on escapes in strings
            expression = parse_expression(text)
        return _to_condition(expression, 0)
    except SyntaxError as error:
        place = f"character {error.offset}" if error.offset else "the end"  # 0: more was expected
        raise SettingsError(f"{error.msg} at {place}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"cannot be read: {error or type(error).__name__}") from error


def _to_condition(node: ast.expr, depth: int) -> Condition:
    if depth > _DEEPEST:
        raise SettingsError(f"more than {_DEEPEST} levels of brackets or not")
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            return All(tuple(_to_condition(value, depth + 1) for value in values))
        case ast.BoolOp(values=values):
            return Any(tuple(_to_condition(value, depth + 1) for value in values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return Not(_to_condition(operand, depth + 1))
        case ast.Compare(left=left, ops=operators, comparators=rights):
            pairs = zip([left, *rights], operators, rights, strict=False)
            tests = tuple(_to_test(*pair) for pair in pairs)
            return tests[0] if len(tests) == 1 else All(tests)
    if (field := _to_field(node)) is not None:
        return Truth(field)
    raise SettingsError(f"{_show(node)} is not a condition")


def _to_test(left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Condition:
    if isinstance(operator, ast.NotEq | ast.NotIn | ast.IsNot):
        opposites: dict[type[ast.cmpop], ast.cmpop] = {ast.NotEq: ast.Eq(), ast.NotIn: ast.In(), ast.IsNot: ast.Is()}
        return Not(_to_test(left, opposites[type(operator)], right))
    field, other = _to_field(left), _to_field(right)
    if field is not None and other is not None:
        raise SettingsError(
            f"{_show(left)} is compared with the field {_show(right)}; compare a field with a value, and put text in "
            "quotes"
        )
    if isinstance(operator, ast.In):
        return _to_membership(field, other, left, right)
    if field is None and other is not None:
        operator, field, right = _MIRRORED.get(type(operator), type(operator))(), other, left
    if field is None:
        hint = (
            f"; a field of that name is written {quote_name(left.value)}"
            if isinstance(left, ast.Constant) and isinstance(left.value, str)
            else ""
        )
        raise SettingsError(f"neither {_show(left)} nor {_show(right)} is a field{hint}")
    if isinstance(operator, ast.Eq) and isinstance(right, ast.List):
        return SameList(field, _to_items(right))
    value = _to_value(right)
    if value is None and isinstance(operator, ast.Eq | ast.Is):
        return Not(Present(field))
    if isinstance(operator, ast.Is):
        if not isinstance(value, bool):
            raise SettingsError(f"`is` takes None, True or False; compare with {_show(right)} by == or !=")
        return Compare(field, "==", value)
    if value is None or (isinstance(value, bool) and not isinstance(operator, ast.Eq)):
        raise SettingsError(f"{_show(right)} is neither less nor greater than a value; compare with it by == or !=")
    return Compare(field, _OPERATORS[type(operator)], value)


def _to_membership(field: str | None, other: str | None, left: ast.expr, right: ast.expr) -> Condition:
    if other is not None:
        if (value := _to_value(left)) is None:
            raise SettingsError(f"{_show(left)} in {other}: expected a text, a number, True or False on the left")
        return Contains(other, value)
    if field is None:
        raise SettingsError(f"{_show(left)} in {_show(right)}: expected a field on one side")
    # ("en") is no tuple in Python, but its meaning is clear
    items = right.elts if isinstance(right, ast.Tuple | ast.List | ast.Set) else [right]
    values = [_to_value(item) for item in items]
    tests: list[Condition] = [Among(field, tuple(value for value in values if value is not None))]
    return Any((*tests, Not(Present(field)))) if None in values else tests[0]


def _to_items(node: ast.List) -> tuple[Value, ...]:
    items = [_to_value(item) for item in node.elts]
    if None in items:
        raise SettingsError(f"{_show(node)} has None in it; expected numbers, texts in quotes, True or False")
    return tuple(item for item in items if item is not None)


def _to_field(node: ast.expr) -> str | None:
    """Name of the field, or None if the expression is not a field.

    Raises:
        SettingsError: It looks a field up within another by square brackets.
    """
    match node:
        case ast.Name(id=name):
            return unquote_name(name)
        case ast.Attribute(value=outer, attr=name):
            prefix = _to_field(outer)
            return None if prefix is None else f"{prefix}.{unquote_name(name)}"
        case ast.Subscript(value=ast.Name(id="field"), slice=ast.Constant(value=str(name))):
            return encodable(name)
        case ast.Subscript() if (path := _to_path(node)) is not None:
            quoted = json.dumps(encodable(path), ensure_ascii=False)
            raise SettingsError(f"{_show(node)} is no field; a field within a field is written field[{quoted}]")
    return None


def _to_path(node: ast.expr) -> str | None:
    """Name of the field within a field that `outer["inner"]` seems to mean; None if it is nothing of the kind."""
    match node:
        case ast.Name(id=name) if name != "field":
            return unquote_name(name)
        case ast.Subscript(value=ast.Name(id="field"), slice=ast.Constant(value=str(name))):
            return name
        case ast.Subscript(value=outer, slice=ast.Constant(value=str(name))) if (prefix := _to_path(outer)) is not None:
            return f"{prefix}.{name}"
        case ast.Attribute(value=outer, attr=name) if (prefix := _to_path(outer)) is not None:
            return f"{prefix}.{unquote_name(name)}"
    return None


def _to_value(node: ast.expr) -> Value | None:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=ast.Constant(value=int() | float() as value)) if (
            not isinstance(value, bool)
        ):
            return -value if isinstance(sign, ast.USub) else value
    raise SettingsError(f"{_show(node)} is no value; expected a number, a text in quotes, True, False or None")


def _show(node: ast.expr) -> str:
    return f"{ast.unparse(node):.80}"


def _cut(text: str) -> str:
    return f"{text!r:.200}"


_LITERAL = re.compile(rf"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|{QUOTED}")
_KEYWORDS = "|".join(
    word for word in keyword.kwlist if word not in ("and", "or", "not", "in", "is", "None", "True", "False")
)
_SQL_FORMS = (
    (rf"(?<![.\w])(?-i:({_KEYWORDS}))\b", r'field["\1"]'),
    (r"\bIS\s+NOT\s+NULL\b", "is not None"),
    (r"\bIS\s+NULL\b", "is None"),
    (r"((?:[\w.]|\x00\d+\x00)+)\s+BETWEEN\s+(\S+)\s+AND\s+(\S+)", r"\2 <= \1 <= \3"),
    (r"((?:[\w.]|\x00\d+\x00)+)\s+NOT\s+I?LIKE\s+(\x00\d+\x00)", r"\2 not in \1"),
    (r"((?:[\w.]|\x00\d+\x00)+)\s+I?LIKE\s+(\x00\d+\x00)", r"\2 in \1"),
    (r"<>", "!="),
    (r"(?<![<>=!])=(?!=)", " == "),
    (r"&&?", " and "),
    (r"\|\|?", " or "),
    (r"!(?!=)", " not "),
    (r"\b(AND|OR|NOT|IN|IS)\b", lambda match: match[0].lower()),
    (r"\b(?:NULL|NONE)\b", "None"),
    (r"\bTRUE\b", "True"),
    (r"\bFALSE\b", "False"),
)


def _from_sql(text: str) -> str:
    """The text with syntax of SQL and C in Python's form; quoted texts stay, except for the % in those of LIKE."""
    literals: list[str] = []

    def keep(match: re.Match[str]) -> str:
        literals.append(match[0])
        return f"\0{len(literals) - 1}\0"

    changed = _LITERAL.sub(keep, text)
    like = set(map(int, re.findall(r"LIKE\s+\x00(\d+)\x00", changed, re.IGNORECASE)))
    for pattern, python in _SQL_FORMS:
        changed = re.sub(pattern, python, changed, flags=re.IGNORECASE)
    changed = re.sub(r"[ \t]+", " ", changed).strip()
    changed = re.sub(
        r"\0(\d+)\0",
        lambda match: literals[int(match[1])].replace("%", "") if int(match[1]) in like else literals[int(match[1])],
        changed,
    )
    return text if changed == re.sub(r"[ \t]+", " ", text).strip() else changed
