"""Conditions that filters consist of, each evaluated to a mask over the rows of a block of metadata."""

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from llm2comp_indexes.format.columns import Kind, encode_item, encode_whole, to_double
from llm2comp_indexes.format.metadata import Block

__all__ = [
    "All",
    "Among",
    "Any",
    "Compare",
    "Condition",
    "Contains",
    "Not",
    "Operator",
    "FieldTest",
    "Present",
    "SameList",
    "Truth",
    "Value",
    "encodable",
    "find_alternatives",
    "find_tests",
]

Value: TypeAlias = bool | int | float | str
Operator = Literal["==", "<", "<=", ">", ">="]
Mask: TypeAlias = NDArray[np.bool_]

_COMPARE: dict[Operator, Callable[..., Mask]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FARTHEST = 2**63
_ALL_KINDS: frozenset[Kind] = frozenset(get_args(Kind))
_LISTS: frozenset[Kind] = frozenset(("texts", "numbers", "flags", "items", "object"))
_NOWHERE: Mask = np.zeros(1, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class FieldTest:
    """A condition on one field. Its mask is (rows,), or (1,) for None, any number of rows without metadata."""

    field: str

    def mask(self, block: Block | None) -> Mask:
        """Mask of the rows that fulfil it."""
        mask = np.zeros(block.rows, dtype=np.bool_) if block else _NOWHERE
        for kind in self.kinds() if block and block.rows else ():
            if block and (column := block.column(kind, self.field)) is not None:
                mask = mask | (self.match(kind, column) & _to_mask(column.is_valid()))
        return mask

    def kinds(self) -> frozenset[Kind]:
        """Types of values for which it can be true."""
        return _ALL_KINDS

    def match(self, kind: Kind, column: object) -> Mask:
        """Mask of the rows of an Arrow column of this type that fulfil it; values for nulls are ignored."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Present(FieldTest):
    """The document has a value."""

    def match(self, kind: Kind, column: object) -> Mask:
        """All rows: nulls are left out by the caller."""
        return np.ones(1, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Truth(FieldTest):
    """The value is neither False, 0 nor empty."""

    def match(self, kind: Kind, column: object) -> Mask:
        """Truth values as of Python's bool()."""
        if kind == "flag":
            return _to_mask(column)
        if kind in ("integer", "number"):
            return np.not_equal(_to_numbers(column), 0)
        import pyarrow.compute as pc

        return np.greater(_to_numbers((pc.binary_length if kind == "text" else pc.list_value_length)(column)), 0)


@dataclass(frozen=True, slots=True)
class Compare(FieldTest):
    """The value is equal to, less than or greater than a constant of the same type."""

    operator: Operator
    value: Value

    def kinds(self) -> frozenset[Kind]:
        """The type of the constant."""
        return _kinds_of(self.value)

    def match(self, kind: Kind, column: object) -> Mask:
        """Comparison of numbers by value, exactly, and of texts by their characters."""
        if kind == "text":
            import pyarrow.compute as pc

            names = {"==": "equal", "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}
            return _to_mask(pc.call_function(names[self.operator], [column, encodable(str(self.value))]))
        if kind == "integer":
            low, high = self._to_range()
            numbers = _to_numbers(column)
            return (numbers >= low) & (numbers <= high) if low <= high else np.zeros(len(numbers), dtype=np.bool_)
        if kind == "large":
            return _map_large(column, self)
        if kind == "flag":
            return _COMPARE[self.operator](_to_mask(column), self.value)
        return _compare_doubles(_to_numbers(column), self.operator, self.value)  # type: ignore[arg-type]

    def _to_range(self) -> tuple[int, int]:
        """Lowest and highest 64-bit integer that fulfil it: no integer is rounded to a double."""
        value = max(-2 * _FARTHEST, min(2 * _FARTHEST, self.value)) if not isinstance(self.value, str) else 0
        floor, ceiling = math.floor(value), math.ceil(value)
        low = {"==": ceiling, ">": floor + 1, ">=": ceiling}.get(self.operator, -_FARTHEST)
        high = {"==": floor, "<": ceiling - 1, "<=": floor}.get(self.operator, _FARTHEST - 1)
        low, high = max(low, -_FARTHEST), min(high, _FARTHEST - 1)
        return (low, high) if low <= high else (0, -1)


@dataclass(frozen=True, slots=True)
class Among(FieldTest):
    """The value is one of several constants."""

    values: tuple[Value, ...]

    def kinds(self) -> frozenset[Kind]:
        """The types of the constants."""
        return frozenset(kind for value in self.values for kind in _kinds_of(value)) or _ALL_KINDS

    def match(self, kind: Kind, column: object) -> Mask:
        """Equality with any of the constants of the column's type."""
        same = [value for value in self.values if kind in _kinds_of(value)]
        if kind == "text":
            return _is_in(column, [encodable(str(value)) for value in same])
        if kind == "flag":
            return np.isin(_to_mask(column), same)
        if kind == "number":
            exact = [number for value in same if (number := _to_exact(value)) is not None]
            return np.isin(_to_numbers(column), np.array(exact, dtype=np.float64))
        if kind == "large":
            return _is_in(column, [encode_whole(value) for value in same if isinstance(value, int)])
        if kind == "integer":
            whole = [
                int(value)
                for value in same
                if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value) and value == int(value))
            ]
            return np.isin(
                _to_numbers(column),
                np.array([value for value in whole if -_FARTHEST <= value < _FARTHEST], dtype=np.int64),
            )
        return np.zeros(1, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Contains(FieldTest):
    """The value is a list or an object that contains the constant, or a text that contains it as a substring."""

    value: Value

    def kinds(self) -> frozenset[Kind]:
        """Lists and objects, in which the constant is sought whatever else they hold, and texts for a text."""
        return _LISTS | {"text"} if isinstance(self.value, str) else _LISTS

    def match(self, kind: Kind, column: object) -> Mask:
        """Membership in lists of the constant's type and among an object's names, substrings of texts."""
        import pyarrow.compute as pc

        if kind == "text":
            return _to_mask(pc.match_substring(column, encodable(str(self.value))))
        if kind not in self._places():
            return np.zeros(1, dtype=np.bool_)
        values, offsets = column.values, column.offsets.to_numpy()  # type: ignore[attr-defined]
        hits = _to_mask(pc.equal(values, _to_item(kind, self.value)))
        before = np.concatenate([[0], np.cumsum(hits)])  # hits before each value
        mask: Mask = before[offsets[1:]] > before[offsets[:-1]]
        return mask

    def _places(self) -> tuple[Kind, ...]:
        """Types of the lists that may hold the constant."""
        if isinstance(self.value, bool):
            return ("flags",)
        if isinstance(self.value, str):
            return ("texts", "object")
        return ("items",) if _to_exact(self.value) is None else ("numbers",)


@dataclass(frozen=True, slots=True)
class SameList(FieldTest):
    """The value is a list of the same items in the same order; in lists, 1, 1.0 and True are equal, as in Python."""

    values: tuple[Value, ...]

    def kinds(self) -> frozenset[Kind]:
        """Lists of any type."""
        return frozenset(("texts", "numbers", "flags", "items"))

    def mask(self, block: Block | None) -> Mask:
        """Mask of the rows that fulfil it; a list that several columns share is compared as its `items`."""
        if block is None or not block.rows:
            return _NOWHERE if block is None else np.zeros(0, dtype=np.bool_)
        columns = {kind: block.column(kind, self.field) for kind in self.kinds()}
        present = {kind: _to_mask(column.is_valid()) for kind, column in columns.items() if column is not None}
        shared = sum(rows.astype(np.int8) for kind, rows in present.items() if kind != "items") != 1
        mask = np.zeros(block.rows, dtype=np.bool_)
        for kind, rows in present.items():
            complete = rows if kind == "items" else rows & ~shared & ~present.get("items", mask)
            mask[self._find(kind, columns[kind], np.flatnonzero(complete))] = True
        return mask

    def _find(self, kind: Kind, column: object, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those of the rows whose lists are equal."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if (items := self._to_items(kind)) is None:
            return rows[:0]
        values, offsets = column.values, column.offsets.to_numpy()  # type: ignore[attr-defined]
        rows = rows[offsets[rows + 1] - offsets[rows] == len(items)]
        for place, item in enumerate(items):
            if rows.size:
                rows = rows[_to_mask(pc.equal(values.take(pa.array(offsets[rows] + place)), item))]
        return rows

    def _to_items(self, kind: Kind) -> list[Value] | None:
        """The constants as lists of this type hold them; None if these cannot hold one of them."""
        if kind == "texts":
            fits = all(isinstance(value, str) for value in self.values)
        elif kind == "flags":
            fits = all(value in (0, 1) for value in self.values)
        else:
            fits = kind == "items" or all(_to_exact(value) is not None for value in self.values)
        if not fits:
            return None
        return [bool(value) if kind == "flags" else _to_item(kind, value) for value in self.values]


@dataclass(frozen=True, slots=True)
class All:
    """All parts are true."""

    parts: tuple["Condition", ...]

    def mask(self, block: Block | None) -> Mask:
        """Mask of the rows that fulfil it."""
        return reduce(np.logical_and, (part.mask(block) for part in self.parts))


@dataclass(frozen=True, slots=True)
class Any:
    """At least one part is true."""

    parts: tuple["Condition", ...]

    def mask(self, block: Block | None) -> Mask:
        """Mask of the rows that fulfil it."""
        return reduce(np.logical_or, (part.mask(block) for part in self.parts))


@dataclass(frozen=True, slots=True)
class Not:
    """The part is false."""

    part: "Condition"

    def mask(self, block: Block | None) -> Mask:
        """Mask of the rows that fulfil it."""
        return ~self.part.mask(block)


Condition: TypeAlias = FieldTest | All | Any | Not


def find_tests(condition: Condition) -> Iterator[FieldTest]:
    """The conditions on single fields that it consists of, in order."""
    match condition:
        case All(parts=parts) | Any(parts=parts):
            for part in parts:
                yield from find_tests(part)
        case Not(part=part):
            yield from find_tests(part)
        case FieldTest():
            yield condition


def find_alternatives(condition: Condition) -> Iterator[tuple[FieldTest, ...]]:
    """As `find_tests`; the tests of an `or` come together if all are on one field, since one match is enough."""
    match condition:
        case Any(parts=parts):
            tests = tuple(part for part in parts if isinstance(part, FieldTest))
            if len(tests) == len(parts) and len({test.field for test in tests}) == 1:
                yield tests
                return
            for part in parts:
                yield from find_alternatives(part)
        case All(parts=parts):
            for part in parts:
                yield from find_alternatives(part)
        case Not(part=part):
            yield from find_alternatives(part)
        case FieldTest():
            yield (condition,)


def _kinds_of(value: Value) -> frozenset[Kind]:
    """Types of columns that may hold the value."""
    if isinstance(value, bool):
        return frozenset(("flag",))
    return frozenset(("text",) if isinstance(value, str) else ("integer", "number", "large"))


def _to_item(kind: Kind, value: Value) -> Value:
    """The value as lists of this type hold it."""
    if kind == "items":
        return encode_item(value)
    if kind == "numbers":
        return to_double(value)  # type: ignore[arg-type]
    return encodable(value) if isinstance(value, str) else value


def _to_mask(column: object) -> Mask:
    """Truth values of an Arrow array, null as False."""
    mask: Mask = column.fill_null(False).to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]
    return mask


def _to_numbers(column: object) -> NDArray[np.int64] | NDArray[np.float64]:
    """Numbers of an Arrow array, null as 0."""
    numbers: NDArray[np.int64] | NDArray[np.float64] = column.fill_null(0).to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]
    return numbers


def _to_exact(value: Value) -> float | None:
    """The double that is equal to the number; None if there is none."""
    return number if not isinstance(value, str) and (number := to_double(value)) == value else None


def _compare_doubles(numbers: NDArray[np.float64], operator: Operator, value: float) -> Mask:
    """The comparison as in Python, which rounds no whole number to a double."""
    double = to_double(value)
    if double == value:
        return _COMPARE[operator](numbers, double)
    if operator == "==":
        return np.zeros(len(numbers), dtype=np.bool_)
    if operator in ("<", "<="):
        return numbers <= double if double < value else numbers < double
    return numbers > double if double < value else numbers >= double


def _map_large(column: object, test: Compare) -> Mask:
    """The comparison of each whole number, False for nulls."""
    texts = column.to_pylist()  # type: ignore[attr-defined]
    compare = _COMPARE[test.operator]
    return np.array([text is not None and compare(int(text, 16), test.value) for text in texts], dtype=np.bool_)


def _is_in(column: object, texts: list[str]) -> Mask:
    """Mask of the texts that are among these."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return _to_mask(pc.is_in(column, value_set=pa.array(texts, type=pa.string())))


def encodable(text: str) -> str:
    """The text without halves of surrogate pairs, as metadata keeps it."""
    return text.encode("utf-8", "replace").decode()
