"""Files as documents, with path, name and time as metadata; those that cannot be read are reported and counted."""

import codecs
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

from llm2comp.corpus.columns import normalise
from llm2comp.corpus.documents import Document
from llm2comp.corpus.encoding import choose_encoding
from llm2comp.corpus.files.content import FileContent, Note
from llm2comp.corpus.files.readers import READERS, Reader, suffix_of
from llm2comp.corpus.files.stamp import FileCheck, Stamp, stamp_of
from llm2comp.corpus.files.summary import FileSummary
from llm2comp.corpus.report import Report, list_names, note_left_out
from llm2comp.corpus.scalars import to_json
from llm2comp.corpus.text import NOT_UTF8, read_bytes, readable, uncompressed_name
from llm2comp.errors import CorpusError

__all__ = ["FILE_FIELDS", "FILE_TIME", "FileDocument", "TextFile", "read_bare_texts", "read_files"]

FILE_TIME = "file_modified"
FILE_FIELDS = ("file_path", "file_name", FILE_TIME)
"""Metadata of every file: path from the folder of the corpus, name, and time of the last change in UTC."""

_FAULTS = "with errors"


class TextFile(NamedTuple):
    """A file to read.

    Attributes:
        path: Where it is.
        position: Its path from the folder of the corpus; of a corpus that is one file, its name.
        identifier: Id of its document.
    """

    path: Path
    position: str
    identifier: str


class FileDocument(NamedTuple):
    """A file that was read.

    Attributes:
        file: The file.
        document: Its document, whose id is empty.
        stamp: Size and time by which it is known again; None: it has to be read again.
    """

    file: TextFile
    document: Document
    stamp: Stamp | None


def read_files(
    files: Callable[[], Iterable[TextFile]],
    report: Report,
    summary: FileSummary,
    metadata: Sequence[str] | None = None,
    encoding: str | None = None,
    check: FileCheck | None = None,
    *,
    single: bool = False,
) -> Iterator[FileDocument]:
    """Each file with its document.

    Files of kinds whose libraries are not installed are reported before any is read. A file without text is counted and
    left out; one that is damaged, protected or malformed is reported too.

    Args:
        files: Returns the files to read.
        report: Receives messages.
        summary: Counts the files.
        metadata: Names of the metadata that is kept, in any case; None: all.
        encoding: Encoding of texts and pages; None: what they show, name or look like.
        check: Decides which files are not read, as they are known; None: all are read.
        single: Whether there is one file, which then must have all of this metadata.
    """
    missing = {suffix: module for suffix, reader in READERS.items() if (module := reader.missing())}
    for file in files():
        if module := missing.get(suffix_of(file.path)):
            report(f'{file.path}: reading it needs {module}, which is not installed: pip install "llm2comp[files]"')
    unseen = set(metadata or ())
    for file in files():
        kind = suffix_of(file.path)
        if check and check.is_unchanged(file.identifier, file.path):
            summary.unchanged += 1
            continue
        if module := missing.get(kind):
            summary.skip(kind, f"needing {module}")
            _note_failed(check, file)
            continue
        try:
            document, note, fields, stamp = _read_file(file, metadata, encoding)
            unseen.difference_update(document.metadata)
            if single and unseen:
                raise ValueError(f"no field {list_names(sorted(unseen))}; the fields are {list_names(fields)}")
        except (CorpusError, ValueError, RecursionError) as error:
            _note_failed(check, file)
            report(_describe(error, file))
            summary.skip(kind, _FAULTS)
        else:
            if not document.text.strip():
                summary.skip(kind, "without text")
                continue
            summary.add(kind, note, file.position)
            if unseen:
                summary.fields.update(dict.fromkeys(fields))
            yield FileDocument(file, document, stamp)
    summary.unseen = [] if summary.unchanged else sorted(unseen)


def _note_failed(check: FileCheck | None, file: TextFile) -> None:
    if check:
        check.note_failed(file.identifier)


def _describe(error: Exception, file: TextFile) -> str:
    if isinstance(error, RecursionError):
        return f"{file.path}: nested too deeply"
    return str(error) if isinstance(error, CorpusError) else f"{file.path}: {error}"


def read_bare_texts(
    files: Iterable[TextFile],
    report: Report,
    summary: FileSummary,
    encoding: str | None = None,
    check: FileCheck | None = None,
) -> Iterator[FileDocument]:
    """Text files as 0.1.0 read them: the whole text, empty or not, without title and metadata."""
    for file in files:
        if check and check.is_unchanged(file.identifier, file.path):
            summary.unchanged += 1
            continue
        try:
            _check_name(file)
            content, _, stamp = _read_content(file.path, READERS[".txt"], encoding)
        except CorpusError as error:
            _note_failed(check, file)
            report(str(error))
            summary.skip(suffix_of(file.path), _FAULTS)
        else:
            summary.add(suffix_of(file.path))
            yield FileDocument(file, Document("", "", content.text), stamp)


def _read_file(
    file: TextFile, metadata: Sequence[str] | None, encoding: str | None
) -> tuple[Document, Note | None, Sequence[str], Stamp | None]:
    """The document of a file, a note on it for the summary, the names of all its metadata, and its stamp.

    Raises:
        CorpusError: It cannot be read, is not UTF-8, or changes while it is read; the message names it.
        ValueError: It is damaged, protected or malformed.
    """
    _check_name(file)
    reader = READERS[suffix_of(file.path)]
    content, modified, stamp = _read_content(file.path, reader, encoding)
    name = Path(uncompressed_name(file.path))
    title = content.title or (name.name if reader.code else name.stem if reader.named else "")
    fields = _join_fields(file, content.metadata, modified)
    names = list(fields)
    if metadata is not None:
        chosen = {normalise(name): name for name in metadata}
        fields = {chosen[normalise(name)]: value for name, value in fields.items() if normalise(name) in chosen}
    left_out = set[str]()
    values = to_json(fields, left_out=left_out)
    if left_out:
        note_left_out(str(file.path), tuple(sorted(left_out)))
    return Document("", title, content.text, values, content.markup, content.pages), content.note, names, stamp


def _check_name(file: TextFile) -> None:
    try:
        file.position.encode("utf-8")
    except UnicodeEncodeError:
        raise CorpusError(f"{file.position!r}: the file's name is not UTF-8; rename it") from None


def _read_content(path: Path, reader: Reader, encoding: str | None) -> tuple[FileContent, str, Stamp | None]:
    """Content of a file, the time of its last change in UTC (an empty one if no calendar has it), and its stamp.

    Raises:
        CorpusError: It cannot be read, is not UTF-8, or changes meanwhile.
        ValueError: It is damaged, protected or malformed.
    """
    with readable(path):
        before = path.stat()
        try:
            content = reader.read(_read_bytes(path, reader, encoding))
        finally:
            after = path.stat()
            if S_ISREG(before.st_mode) and (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
                raise CorpusError(f"{path}: changed while it was read; read it again when nothing writes to it")
    try:
        modified = datetime.fromtimestamp(after.st_mtime, UTC).isoformat(timespec="seconds")
    except (OverflowError, OSError, ValueError):
        modified = ""
    return content, modified, stamp_of(after)


def _read_bytes(path: Path, reader: Reader, encoding: str | None) -> bytes:
    """Bytes of a file as its reader takes them, decompressed.

    Raises:
        CorpusError: They are text, but not in UTF-8; the message names the line.
    """
    if not reader.encoding or (reader.encoding == "page" and encoding is None):
        return read_bytes(path, "utf-8")
    data = read_bytes(path, encoding)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        guess = choose_encoding(path, None)
        if encoding is not None or guess is None:
            line = data.count(b"\n", 0, error.start) + 1
            raise CorpusError(f"{path}:{line}: {NOT_UTF8}") from error
        data = read_bytes(path, guess)
    return codecs.BOM_UTF8 + data if reader.encoding == "page" else data  # the mark outweighs what the page names


def _join_fields(file: TextFile, fields: dict[str, Any], modified: str) -> dict[str, Any]:
    """Metadata of the content and of the file; names of the file's are not the content's."""
    if taken := [f"{name} (kept for the file)" for name in FILE_FIELDS if name in fields]:
        note_left_out(str(file.path), tuple(taken))
    ours = {"file_path": file.position, "file_name": file.path.name, FILE_TIME: modified}
    return {**fields, **ours} if modified else {**fields, "file_path": file.position, "file_name": file.path.name}
