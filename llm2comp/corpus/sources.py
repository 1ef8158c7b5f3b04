"""Names of sources, and the ids made for documents whose corpus gives none.

Every such id begins with the name of its source, which holds neither `/` nor `#`, and goes on with one of the two or
not at all: two sources never share an id. It depends on the source's name and on the document, not on the machine.
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from llm2comp.corpus.columns import Columns, normalise, normalise_names
from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.id_set import IdSet
from llm2comp.corpus.kinds import find_files, holds_texts, is_bare_text, is_pattern, pattern_root
from llm2comp.corpus.remote import is_remote, to_path
from llm2comp.corpus.rows import Rows
from llm2comp.corpus.text import uncompressed_name
from llm2comp.errors import SettingsError

__all__ = [
    "IdMaker",
    "Source",
    "default_name",
    "find_maker",
    "is_content_id",
    "is_named",
    "name_sources",
    "root_of",
    "source_of",
]

_UNFIT = re.compile(r"[/#\x00-\x1f\x7f]")
_HASH_BYTES = 8
_CONTENT = re.compile(rf"[^/#]+#[0-9a-f]{{{2 * _HASH_BYTES}}}(-[0-9]+)?")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """A corpus that documents of an index came from.

    Attributes:
        name: What ids made for its documents begin with.
        root: Resolved path, or a name such as `hub:NAME` or `python-docs:`; None: it was read on several machines, from
            different paths.
        positions: Whether its rows without an id get their position as id, instead of a hash of their content.
        paths: Whether ids made for its documents are paths or positions, now or when it was added before: the name
            alone, or `NAME/...`.
        fields: Which fields of its rows are id, title, text and metadata.
        strings: Whether all columns of its CSV and TSV files are text.
        columns: Name and type of each metadata column of these files that has a value; `strings`: none.
        files: Whether files that are a document each are read with title, metadata and structure, and files of every
            kind; False: version 0.1.0 read them, .txt and .md files as bare texts, and they stay so.
    """

    name: str
    root: str | None
    positions: bool = False
    paths: bool = False
    fields: FieldNames = FieldNames()
    strings: bool = False
    columns: tuple[tuple[str, str], ...] = ()
    files: bool = False

    def known_columns(self) -> Columns:
        """The names of its columns: those of its fields, and of the metadata that it had so far."""
        return self.fields.columns([name for name, _ in self.columns])


def name_sources(
    corpora: Sequence[str | Path | Rows],
    known: Sequence[Source] = (),
    *,
    name: str | None = None,
    positions: bool = False,
    fields: FieldNames | None = None,
    strings: bool = False,
    bare_texts: bool = False,
) -> list[Source]:
    """The source of each corpus: a known one with its root or the given name, or else a new one with a unique name.

    Args:
        corpora: As `read_corpus` takes them.
        known: Sources of the index so far.
        name: Name for the source of a single corpus; one that is known is that source, whatever its root was.
        positions: Whether new sources make ids of positions.
        fields: Fields of rows; what they leave open is as a known source was added, and known names for new ones.
        strings: Whether new sources keep all columns of CSV and TSV files as text.
        bare_texts: Whether new sources with .txt or .md files are read as 0.1.0 read them.

    Raises:
        SettingsError: The name does not fit, or goes with several corpora; a corpus is known under several names, or
            with ids of another kind or field; or rows of standard input would get their positions as ids without a name
            that says which input it is.
    """
    if name is not None:
        _check_name(name, corpora)
    listed = list(known)
    sources = []
    for corpus in corpora:
        source = _find_known(corpus, listed, name, positions)
        if source is None:
            made = name or _unique_name(corpus, listed, known)
            source = Source(made, root_of(corpus), positions, fields=fields or FieldNames(), strings=strings)
        else:
            source = _with_settings(corpus, source, fields, strings)
        if name is None and source.positions and (isinstance(corpus, Rows) or str(corpus) == "-"):
            where = "rows in memory" if isinstance(corpus, Rows) else "standard input"
            raise SettingsError(
                f"positions in {where} are ids only within one input, and another one would replace its "
                "documents: say which it is with --source NAME (source), or leave out --ids-are-positions"
            )
        texts = _holds_texts(corpus)
        bare = texts and not source.files and (source.paths or bare_texts and _holds_bare_texts(corpus))
        paths = source.paths or source.positions or texts
        source = replace(source, paths=paths, files=source.files or texts and not bare)
        listed = [other for other in listed if other.name != source.name] + [source]
        sources.append(source)
    return sources


def _check_name(name: str, corpora: Sequence[str | Path | Rows]) -> None:
    if len(corpora) != 1:
        raise SettingsError(f"source {name!r} names one corpus, {len(corpora)} are given; add each on its own")
    if not name.strip() or _UNFIT.search(name) or name != _utf8(name):
        raise SettingsError(f"source is {name!r}, expected a name without / and #, such as handbook")


def _find_known(
    corpus: str | Path | Rows, listed: Sequence[Source], name: str | None, positions: bool
) -> Source | None:
    root = root_of(corpus)
    matches = [source for source in listed if (source.root == root if name is None else source.name == name)]
    if not matches:
        return None
    if len(matches) > 1:
        names = ", ".join(source.name for source in matches)
        raise SettingsError(f"{corpus}: in the index as the sources {names}; choose one of them (--source NAME)")
    if positions and not matches[0].positions:
        raise SettingsError(
            f'{corpus}: in the index as "{matches[0].name}", with hashes of rows as ids; leave out --ids-are-positions '
            "(ids_are_positions), or give it another name (--source NAME)"
        )
    return replace(matches[0], root=root)


def _with_settings(corpus: str | Path | Rows, source: Source, fields: FieldNames | None, strings: bool) -> Source:
    """A known source, read with these fields and, unless it has typed columns already, with all columns as text."""
    if fields is not None:
        chosen = fields.over(source.fields)
        _check_id_field(corpus, source, chosen)
        source = replace(source, fields=chosen)
    if strings and source.columns:
        raise SettingsError(
            f'{corpus}: in the index as "{source.name}", with types of CSV columns; leave out --csv-strings '
            "(csv_strings), or give it another name (--source NAME)"
        )
    return replace(source, strings=source.strings or strings)


def _check_id_field(corpus: str | Path | Rows, source: Source, fields: FieldNames) -> None:
    """Checks that a source keeps the field of its ids; with another one, its documents would be added once more."""
    before, now = (None if names.id is None else normalise(names.id) for names in (source.fields, fields))
    if before != now:
        raise SettingsError(
            f'{corpus}: in the index as "{source.name}", with ids from {_describe_field(source.fields.id)}, not '
            f"{_describe_field(fields.id)}; choose the same (--id-field), or give it another name (--source NAME)"
        )


def _describe_field(name: str | None) -> str:
    return "the first known name" if name is None else f'"{name}"'


def _unique_name(corpus: str | Path | Rows, listed: Sequence[Source], known: Sequence[Source]) -> str:
    base, taken = default_name(corpus), {source.name for source in listed}
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    namesake = next((source for source in known if source.name == base), None)
    if namesake:
        _logger.warning(
            '%s: another source than "%s" (%s), and named "%s"; if it is the same in a new place, use --source %s',
            corpus,
            base,
            namesake.root or "read on several machines",
            name,
            base,
        )
    return name


def root_of(corpus: str | Path | Rows) -> str:
    """What a source of the corpus is known by: the resolved path, or a name such as `hub:NAME`."""
    return (
        str(corpus) if isinstance(corpus, Rows) or is_named(corpus) or is_remote(corpus) else os.path.realpath(corpus)
    )


def _holds_texts(corpus: str | Path | Rows) -> bool:
    return not isinstance(corpus, Rows) and not is_named(corpus) and holds_texts(to_path(corpus))


def _holds_bare_texts(corpus: str | Path | Rows) -> bool:
    path = to_path(str(corpus))
    several = path.is_dir() or is_pattern(path)
    return next(find_files(path, is_bare_text), None) is not None if several else is_bare_text(path)


def is_named(corpus: str | Path | Rows) -> bool:
    """Whether the corpus is not a path."""
    return (
        isinstance(corpus, Rows)
        or str(corpus).startswith("hub:")
        or str(corpus) in ("python-docs:", "python-docs:all", "-")
    )


def default_name(corpus: str | Path | Rows) -> str:
    """Name of a source by its root alone: of the file without compression suffix, the folder or the data set."""
    if isinstance(corpus, Rows):
        return str(corpus)
    if str(corpus) == "-":
        return "stdin"
    if str(corpus).startswith("hub:"):
        name = str(corpus).removeprefix("hub:").rstrip(":/").rpartition("/")[2]
    elif is_named(corpus):
        name = str(corpus)
    else:
        path = to_path(corpus) if is_remote(corpus) else Path(os.path.abspath(corpus))
        path = pattern_root(path) if is_pattern(path) else path
        name = path.name if path.is_dir() else uncompressed_name(path)
    return _UNFIT.sub("_", _utf8(name)).strip() or "corpus"


def _utf8(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")


def source_of(identifier: str) -> str:
    """Name of the source that made the id, if any did."""
    return re.split("[/#]", identifier, maxsplit=1)[0]


def find_maker(identifier: str, sources: Iterable[Source]) -> Source | None:
    """The source that may make the id for one of its paths or positions, if any."""
    name = source_of(identifier)
    rest = identifier[len(name) :]
    return next((source for source in sources if source.paths and source.name == name and rest[:1] != "#"), None)


def is_content_id(identifier: str) -> bool:
    """Whether the id looks like one made of the content of a row, which never belongs to other content."""
    return _CONTENT.fullmatch(identifier) is not None


class IdMaker:
    """Makes the ids of one source's documents."""

    def __init__(self, source: Source, *, files: bool, single: bool) -> None:
        """Ids of files, or of rows; `single`: the source is one file."""
        self._name, self._positions = source.name, source.positions
        self._files, self._single = files, single
        self._repeats: dict[str, int] = {}

    def make(self, position: str, content: tuple[str, str, dict[str, Any]], taken: IdSet) -> str:
        """The next id, which is added to `taken`.

        Args:
            position: Path of a file from the root; of a row, `file.jsonl:LINE`.
            content: Title, text and metadata.
            taken: All ids of the corpus so far.

        Raises:
            ValueError: The id is taken already by an id that the corpus gave.
        """
        if not self._files and not self._positions:
            return self._make_by_content(content, taken)
        identifier = self.name_file(position) if self._files else f"{self._name}/{position}"
        if not taken.add(identifier):
            raise ValueError(f"the id {identifier!r:.80} made for it is one that the corpus gives to another document")
        return identifier

    def name_file(self, position: str) -> str:
        """Id of the document that is the file at this path from the root."""
        return self._name if self._single else f"{self._name}/{position}"

    def _make_by_content(self, content: tuple[str, str, dict[str, Any]], taken: IdSet) -> str:
        """`SOURCE#HASH`; of equal rows, the second one gets `-2` behind it, and so on.

        The case of the names of metadata, blanks around them and their order do not count, as everywhere.
        """
        title, body, metadata = content
        hashed = (title, body, normalise_names(metadata))
        text = json.dumps(hashed, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).hexdigest()
        identifier = base = f"{self._name}#{digest}"
        while not taken.add(identifier):
            self._repeats[digest] = number = self._repeats.get(digest, 1) + 1
            identifier = f"{base}-{number}"
        return identifier
