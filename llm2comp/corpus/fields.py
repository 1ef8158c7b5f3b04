"""Fields of a row: which are its id, title, text and metadata, by their names or as the user says."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from llm2comp.corpus.columns import Columns, normalise
from llm2comp.corpus.documents import Document
from llm2comp.corpus.report import list_names
from llm2comp.corpus.scalars import id_text, is_missing, is_same, to_json
from llm2comp.errors import SettingsError

__all__ = ["ID_FIELDS", "TEXT_FIELDS", "TITLE_FIELDS", "DocumentMaker", "FieldNames"]

ID_FIELDS = ("_id", "id", "docid", "doc_id", "page_id", "passage_id")
TITLE_FIELDS = ("title", "page_title", "doc_title", "document_title", "headline")
TEXT_FIELDS = (
    "text",
    "contents",
    "content",
    "body",
    "document_text",
    "page_text",
    "page_content",
    "passage",
    "full_text",
)
"""Known names, each before those that it has precedence over."""

_USUAL = frozenset({"_id", "id", "title", "text"})
"""Names that are read without a word."""

_LONG_KNOWN = frozenset(
    {"_id", "id", "docid", "doc_id", "title", "text", "contents", "content", "body", "document_text", "metadata"}
)
"""Names of which one that stands as it is known goes before one in another case, whatever their precedence."""

_MOST_SEEN = 1000
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FieldNames:
    """The fields that are a row's id, title, text and metadata; names match without regard to case.

    Attributes:
        id: None: the first known name (`ID_FIELDS`) that has a value.
        title: None: the first known name (`TITLE_FIELDS`) that has a value.
        text: Fields whose texts are joined in this order, with a blank line between them; empty: the first known name
            (`TEXT_FIELDS`) that has a value.
        metadata: None: all other fields.

    Raises:
        SettingsError: A name is empty, or one of a field with two roles.
    """

    id: str | None = None
    title: str | None = None
    text: tuple[str, ...] = ()
    metadata: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for role in ("text", "metadata"):
            names = getattr(self, role)
            if names is not None:
                object.__setattr__(self, role, (names,) if isinstance(names, str) else tuple(names))
        named = [name for name in (self.id, self.title, *self.text) if name is not None]
        if not all(normalise(name) for name in (*named, *(self.metadata or ()))):
            raise SettingsError("the name of a field is empty; give a name, or leave the setting out")
        normal = [normalise(name) for name in named]
        if repeated := next((name for name in named if normal.count(normalise(name)) > 1), None):
            raise SettingsError(f'the field "{repeated}" has two roles among id, title and text; give it one')

    def chosen(self) -> tuple[str, ...]:
        """All names that the user gave."""
        return tuple(name for name in (self.id, self.title, *self.text, *(self.metadata or ())) if name is not None)

    def columns(self, others: Iterable[str] = ()) -> Columns:
        """The known names of columns, for readers of files.

        Args:
            others: Names of metadata that are known too, such as those that a source had before.
        """
        ids, texts = (self.id,) if self.id else ID_FIELDS, self.text or TEXT_FIELDS
        free = [self._free(group) for group in (ids, texts, self.titles(), ("metadata",))]
        known = [_LONG_KNOWN.intersection(group) for group in free]  # the others match by themselves
        known += [frozenset([name]) for group in free for name in group if name not in _LONG_KNOWN]
        taken = Counter(map(normalise, (*ids, *texts, *self.titles(), "metadata", *self.chosen())))
        normal = taken + Counter(map(normalise, others))
        known += [frozenset([name]) for name in others if normal[normalise(name)] == 1]
        return Columns(
            frozenset([*texts, *map(normalise, texts)]),
            frozenset([*ids, *map(normalise, ids)]),
            {2: ("id", "text"), 3: ("id", "text", "title")},
            (*(frozenset([name]) for name in dict.fromkeys(self.chosen())), *filter(None, known)),
        )

    def ids(self) -> tuple[str, ...]:
        """Names of ids: the user's, or the known ones to which the user gave no other role."""
        return self._free(ID_FIELDS) if self.id is None else (self.id,)

    def titles(self) -> tuple[str, ...]:
        """Names of titles, as of ids."""
        return self._free(TITLE_FIELDS) if self.title is None else (self.title,)

    def texts(self) -> tuple[str, ...]:
        """Names of texts, as of ids."""
        return self.text or self._free(TEXT_FIELDS)

    def over(self, others: "FieldNames") -> "FieldNames":
        """These names, with those of `others` for roles that have none, if they have no role here."""
        kept = self._free(name for name in (others.id, others.title) if name is not None)
        return FieldNames(
            others.id if self.id is None and others.id in kept else self.id,
            others.title if self.title is None and others.title in kept else self.title,
            self.text or self._free(others.text),
            others.metadata if self.metadata is None else self.metadata,
        )

    def _free(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the names that are none of the user's, in any case."""
        taken = set(map(normalise, self.chosen()))
        return tuple(name for name in names if normalise(name) not in taken)


class DocumentMaker:
    """Makes documents of the rows of one corpus.

    Args:
        source: The corpus, for messages.
        names: Its fields.
        columns: Known names, under which the readers give the fields.
        same_fields: Whether all rows have the same fields, as in a table.

    Attributes:
        left_out: Fields so far whose values JSON cannot hold.
    """

    def __init__(self, source: str, names: FieldNames, columns: Columns, *, same_fields: bool) -> None:
        self.left_out = set[str]()
        self._source, self._names, self._same_fields = source, names, same_fields
        self._originals = columns.originals
        self._seen = dict[str, None]()  # names of fields in their files, as long as one of the user's is missing
        self._ids, self._titles, self._texts = names.ids(), names.titles(), names.texts()
        self._unseen = set(names.chosen())
        self._recognised = dict[str, str]()  # by role
        self._row: Mapping[str, Any] = {}  # all fields, for messages

    def __call__(self, fields: dict[str, Any]) -> Document:
        """The document of a row's fields; its id is empty if the row has none.

        Raises:
            ValueError: The row has no text, lacks a field that all rows must have, or a value does not fit its role.
        """
        self._check_chosen(fields)
        self._row, fields, recognised = fields, dict(fields), len(self._recognised)
        identifier = self._take_id(fields)
        title = self._take_title(fields)
        text = self._take_text(fields)
        metadata = self._choose_metadata(fields)
        if len(self._recognised) > recognised:
            _note_roles(self._source, tuple(self._recognised.items()))
        return Document(identifier, title, text, to_json(metadata, left_out=self.left_out))

    def finish(self) -> None:
        """Logs one line for the user's names that no row has, beside those that rows have."""
        if self._unseen:
            missing, there = list_names(sorted(self._unseen)), list_names(self._seen, _MOST_SEEN)
            _logger.warning("%s: no row has the field %s; the fields are %s", self._source, missing, there)

    def _check_chosen(self, fields: dict[str, Any]) -> None:
        if not self._unseen:
            return
        nested = fields.get("metadata")
        names = [*fields, *(nested if isinstance(nested, dict) else ())]
        self._unseen.difference_update(names)
        nested_missing = "metadata" in fields and is_missing(fields["metadata"])  # it may hold them in another row
        if self._same_fields and self._unseen and not nested_missing:
            raise ValueError(f"no field {list_names(sorted(self._unseen))}; the fields are {self._list(fields)}")
        if len(self._seen) < _MOST_SEEN:
            self._seen.update(dict.fromkeys(map(self._original, names)))

    def _original(self, name: str) -> str:
        """The name that the field has in its file."""
        return self._originals.get(name, name)

    def _list(self, fields: Iterable[str]) -> str:
        return list_names(map(self._original, fields), _MOST_SEEN)

    def _take_id(self, fields: dict[str, Any]) -> str:
        """The id, which is taken out of the fields; empty if there is none."""
        chosen = self._names.id
        if chosen is not None and is_missing(fields.get(chosen)):
            raise ValueError(f'no id in the field "{self._original(chosen)}"; the fields are {self._list(fields)}')
        name = _first_with_value(self._ids, fields)
        for absent in self._ids:
            if absent in fields and (is_missing(fields[absent]) or (absent != name and _is_blank(fields[absent]))):
                del fields[absent]
        if name is None or name not in fields:
            return ""
        self._note("id", name, chosen)
        try:
            return id_text(fields.pop(name))
        except ValueError as error:
            raise ValueError(f'the id in "{self._original(name)}" is {error}') from None

    def _take_title(self, fields: dict[str, Any]) -> str:
        name = _first_with_value(self._titles, fields)
        if name is None:
            return ""
        title = fields.pop(name)
        self._note("title", name, self._names.title)
        return "" if is_missing(title) else _as_text(title, "title", self._original(name))

    def _take_text(self, fields: dict[str, Any]) -> str:
        if self._names.text:
            return self._join_texts(fields)
        name = _first_with_value(self._texts, fields)
        if name is None:
            raise ValueError(
                f"no text; expected one of the fields {', '.join(self._texts)}, found {self._list(self._row)}; "
                "--text-field NAME (fields) chooses another"
            )
        text = fields.pop(name)
        self._note("text", name, None)
        if is_missing(text):
            raise ValueError(f'the text in "{self._original(name)}" is null, expected a string')
        return _as_text(text, "text", self._original(name))

    def _join_texts(self, fields: dict[str, Any]) -> str:
        present = {name: fields.pop(name) for name in self._names.text if name in fields}
        if not present:
            raise ValueError(
                f"no text; expected the field {list_names(self._names.text)}, found {self._list(self._row)}"
            )
        parts = [
            _as_text(value, "text", self._original(name)) for name, value in present.items() if not is_missing(value)
        ]
        if not parts:
            raise ValueError(f'the text in "{self._original(next(iter(present)))}" is null, expected a string')
        return "\n\n".join(filter(None, parts))

    def _choose_metadata(self, fields: dict[str, Any]) -> dict[str, Any]:
        nested = fields.pop("metadata", None)
        nested = {} if is_missing(nested) else nested or {}
        nested = nested if isinstance(nested, dict) else {"metadata": nested}
        chosen = self._names.metadata
        if chosen is not None:
            whole = "metadata" in chosen
            nested = {name: value for name, value in nested.items() if whole or name in chosen}
            fields = {name: value for name, value in fields.items() if name in chosen}
        return _join_metadata(nested, fields)

    def _note(self, role: str, name: str, chosen: str | None) -> None:
        if chosen is None and name not in _USUAL:
            self._recognised.setdefault(role, name)


@cache  # a corpus may be read several times
def _note_roles(source: str, names: tuple[tuple[str, str], ...]) -> None:
    if names:
        roles = ", ".join(f'{role} from "{name}"' for role, name in names)
        _logger.warning("%s: recognised: %s (--id-field, --title-field, --text-field choose others)", source, roles)


def _first_with_value(names: Iterable[str], fields: Mapping[str, Any]) -> str | None:
    """The first of the names that has a value, or else is a field at all, with a blank text before null."""
    present = [name for name in names if name in fields]
    return min(present, key=lambda name: (is_missing(fields[name]), _is_blank(fields[name])), default=None)


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _as_text(value: Any, role: str, name: str) -> str:
    """A string as it is, and any other scalar as its text."""
    if isinstance(value, str):
        return value
    try:
        return id_text(value)
    except ValueError as error:
        raise ValueError(f'the {role} in "{name}" is {error}') from None


def _join_metadata(nested: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """All fields by name; of a name in both, the value that is there.

    Raises:
        ValueError: A name has two different values.
    """
    for name in nested.keys() & fields.keys():
        if is_missing(fields[name]):
            fields = {other: value for other, value in fields.items() if other != name}
        elif not is_missing(nested[name]) and not is_same(*(to_json(at[name], str(name)) for at in (nested, fields))):
            raise ValueError(
                f'"{name!s:.40}" has two values, {nested[name]!r:.40} in "metadata" and {fields[name]!r:.40} beside '
                "it; rename one"
            )
    return {**nested, **fields}
