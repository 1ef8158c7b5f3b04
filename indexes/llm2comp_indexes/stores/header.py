"""What a store keeps about its table: whose vectors it holds. Read before anything is written or searched."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from llm2comp.checked_json import take, take_count, take_optional
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import StoreError
from llm2comp_indexes.format.columns import Kind

__all__ = ["StoreHeader", "VectorType", "join_kinds", "parse_header"]

VectorType = Literal["float32", "float16"]
_FORMAT = 1
_MOST_DIMENSIONS = 1 << 16


@dataclass(frozen=True, slots=True)
class StoreHeader:
    """What the vectors of a table are.

    Attributes:
        fingerprint: The model's fingerprint; empty for vectors made elsewhere.
        model: Name, folder or Hub id of the model; None if it has none.
        dimension: Length of a vector.
        vector_type: Precision of a number in it.
        chunked: Whether rows are chunks of documents.
        encoder: Options of the encoder, for queries.
        fields: Types of the values of each metadata field, those in objects as `outer.inner`; None: not known.
        types: Types of metadata columns, as `MetadataTypes` has them; None: not known.
        all_fields: Whether `fields` has every field.
    """

    fingerprint: str
    model: str | None
    dimension: int
    vector_type: VectorType = "float32"
    chunked: bool = False
    encoder: EncoderOptions = EncoderOptions()
    fields: Mapping[str, tuple[Kind, ...]] | None = None
    types: Mapping[str, str] | None = None
    all_fields: bool = True

    def to_json(self) -> str:
        """The header as JSON text."""
        content = asdict(self) | {"format": _FORMAT, "encoder": self.encoder.to_json()}
        return json.dumps({"llm2comp": content}, ensure_ascii=True)

    def check_same(self, other: "StoreHeader", place: str) -> None:
        """Checks that vectors of the other header fit into the table at `place`, which has this one.

        Raises:
            StoreError: They are of another dimension, model or precision, or rows are chunks in only one of them.
        """
        if self.dimension != other.dimension:
            raise StoreError(
                f"{place}: holds vectors of dimension {self.dimension}, these have {other.dimension}; name another "
                "table (table=NAME in the address)"
            )
        if (self.fingerprint, self.encoder) != (other.fingerprint, other.encoder):
            raise StoreError(
                f"{place}: holds vectors of {_show(self)}, these are of {_show(other)}: they do not mix; name another "
                "table (table=NAME in the address)"
            )
        for name in ("vector_type", "chunked"):
            if getattr(self, name) != getattr(other, name):
                meaning = {"vector_type": "vectors of {}", "chunked": "rows that are chunks: {}"}[name]
                raise StoreError(
                    f"{place}: holds {meaning.format(getattr(self, name))}, these: {getattr(other, name)}; name "
                    "another table (table=NAME in the address)"
                )

    def joined(self, other: "StoreHeader") -> "StoreHeader":
        """This header with the fields of both."""
        if self.fields is None or other.fields is None:
            return replace(self, fields=None, model=other.model or self.model)
        both = self.all_fields and other.all_fields
        fields = join_kinds([self.fields, other.fields])
        return replace(self, fields=fields, all_fields=both, model=other.model or self.model)


def join_kinds(fields: Iterable[Mapping[str, Iterable[Kind]]]) -> dict[str, tuple[Kind, ...]]:
    """Types of the values of each metadata field, of several sets of rows."""
    joined: dict[str, set[Kind]] = {}
    for each in fields:
        for name, kinds in each.items():
            joined.setdefault(name, set()).update(kinds)
    return {name: tuple(sorted(kinds)) for name, kinds in joined.items()}


def parse_header(text: str | bytes | None, place: str) -> StoreHeader:
    """The header that `to_json` gave.

    Raises:
        StoreError: It is none: the table is not one of llm2comp, or of a newer version.
    """
    try:
        outer = json.loads(text or "null")
        content = outer["llm2comp"]
    except (ValueError, TypeError, KeyError):
        raise StoreError(
            f"{place}: exists and was not made by llm2comp, so it is left alone; name another table (table=NAME in the "
            "address)"
        ) from None
    try:
        if take_count(content, "format", 1, 1 << 20) > _FORMAT:
            raise StoreError(f"{place}: written by a newer version of llm2comp; update it: pip install -U llm2comp")
        return _parse(content)
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"{place}: its description is damaged ({error}); push to another table") from None


def _parse(content: dict[str, Any]) -> StoreHeader:
    vector_type = take(content, "vector_type", str)
    if vector_type not in get_args(VectorType):
        raise ValueError(f"vector_type {vector_type!r:.40}")
    fields = take_optional(content, "fields", dict)
    known = set(get_args(Kind))
    if fields is not None and not all(isinstance(kinds, list) and known.issuperset(kinds) for kinds in fields.values()):
        raise ValueError("fields of no type")
    return StoreHeader(
        take(content, "fingerprint", str),
        take_optional(content, "model", str),
        take_count(content, "dimension", 1, _MOST_DIMENSIONS),
        vector_type,  # type: ignore[arg-type]
        take(content, "chunked", bool),
        EncoderOptions.from_json(take(content, "encoder", dict)),
        None if fields is None else {name: tuple(kinds) for name, kinds in fields.items()},
        take_optional(content, "types", dict),
        take(content, "all_fields", bool),
    )


def _show(header: StoreHeader) -> str:
    name = header.model or "a model without a name"
    options = header.encoder.describe()
    return f"{name} (fingerprint {header.fingerprint[:12] or 'unknown'}{f', {options}' if options else ''})"
