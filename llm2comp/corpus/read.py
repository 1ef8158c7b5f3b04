"""Readers of corpora: files, folders and data sets as streams of documents with unique ids."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llm2comp.corpus.column_types import convert_metadata
from llm2comp.corpus.documents import Document
from llm2comp.corpus.entry import Entry
from llm2comp.corpus.fields import DocumentMaker, FieldNames
from llm2comp.corpus.file_entries import check_no_fields, list_source_files, read_file_entries
from llm2comp.corpus.files.read import TextFile
from llm2comp.corpus.files.stamp import FileCheck
from llm2comp.corpus.hub import read_hub
from llm2comp.corpus.id_set import IdSet
from llm2comp.corpus.judgements import read_qrels, read_queries
from llm2comp.corpus.kinds import find_records_file, find_texts, holds_texts, is_table
from llm2comp.corpus.mixed_types import MixedTypes
from llm2comp.corpus.places import EXPECTED, find_source_tables, is_several
from llm2comp.corpus.python_docs import read_python_docs
from llm2comp.corpus.records import Record, read_json_lines, read_records
from llm2comp.corpus.remote import to_path
from llm2comp.corpus.report import OnError, Report, SkipCounter, choose_report, note_left_out
from llm2comp.corpus.rows import Rows, read_rows
from llm2comp.corpus.share import Share, cut_files
from llm2comp.corpus.sources import IdMaker, Source, default_name, is_named
from llm2comp.corpus.table_format import TableFormat
from llm2comp.corpus.tables import read_tables
from llm2comp.corpus.text import STANDARD_INPUT, open_text, readable
from llm2comp.corpus.typed_tables import decide_types, types_of
from llm2comp.errors import CorpusError

__all__ = [
    "FieldNames",
    "cut_corpus",
    "find_records_file",
    "find_source_files",
    "find_texts",
    "open_text",
    "read_corpus",
    "read_entries",
    "read_json_lines",
    "read_qrels",
    "read_queries",
    "with_types",
]


def read_corpus(
    source: str | Path,
    *,
    on_error: OnError = "raise",
    on_skip: Report | None = None,
    header: bool | None = None,
    quotes: bool | None = None,
    fields: FieldNames | None = None,
    name: str | None = None,
    ids_are_positions: bool = False,
    csv_strings: bool = False,
    separator: str | None = None,
    encoding: str | None = None,
) -> Iterator[Document]:
    """Documents of a corpus, in its order, as a stream: memory holds one document and 16 to 32 bytes per id.

    The name of the source says how it is read:

    - a BEIR folder: its `corpus.jsonl` (or .json, .parquet, .csv, .tsv, plain before compressed);
    - any other folder: each text below it is a document, with the id `NAME/path/from/the/folder`: .txt, .md, .markdown,
      .rst, .html, .htm, .xhtml, .pdf, .docx and .epub files (all but .txt and Markdown need the extra `files`). Its
      title, metadata and structure are as docs/corpora.md says. Without texts, and where texts other than .txt and .md
      stand beside files of rows, all rows of these files. Folders named `year=2023` give these rows the field `year`.
      Hidden files are left out;
    - a pattern with `*`, `?`, `[...]` or `**`: the files that match it, as of a folder;
    - one .jsonl, .ndjson or .json file (an object per line), .csv, .tsv, .parquet, or a text as in a folder;
    - any of these with `s3://BUCKET/`, `gs://BUCKET/` or `hf://datasets/USER/NAME/` in front
      (`llm2comp.corpus.remote`);
    - `-`: JSON lines from standard input, which can be read once; the source is named `stdin`;
    - `hub:NAME[:CONFIG][:SPLIT]`: a data set of the Hugging Face Hub (or a local folder that `datasets` can load),
      streamed;
    - `python-docs:`, `python-docs:all`: docstrings of the standard library, and of every installed package.

    A file of a text format may be compressed (.gz, .xz, .zst). A row's id, title and text are in the fields that
    `fields` names, or in the first known name that has a value (`llm2comp.corpus.fields`: `_id`, `id`, `docid` ...;
    `title` ...; `text`, `contents`, `body` ...); names match without regard to case and surrounding blanks, and one
    line says which. An id that is a scalar becomes its text; without one, the id is `NAME#HASH`, of the row's content,
    and equal rows are numbered. The fields of `metadata` and all other fields become metadata (a name with a value in
    each is an error, unless the two are equal); dates become ISO strings, NaN becomes null, what JSON cannot represent
    (bytes, images) is left out, with one line that names the fields, and an infinite number is an error. NaN, NaT and
    null are as if the field was not there. A .csv or .tsv file of two or three columns without a header line has id and
    text, then the title. A column of metadata in such files has numbers, truth values or ISO dates if all its values in
    all files of the source are such, which a first pass finds out (`llm2comp.corpus.column_types`).

    Args:
        source: A file, a folder, or one of the names above.
        on_error: Whether a malformed row or a duplicate id raises an error or is skipped (of equal ids, the first is
            kept).
        on_skip: With "skip", receives each message `file:line: what is wrong`; by default messages are logged.
        header: Whether the first line of a .csv or .tsv file has the column names; None: if it has known ones, or if
            there are neither two nor three columns.
        quotes: Whether fields of .csv and .tsv files may be enclosed in quotes; None: in CSV they may, in TSV if the
            file shows it.
        fields: Which fields of a row are its id, title, text and metadata, and which metadata of texts is kept; None:
            known names, and all.
        name: What ids made for documents begin with; None: the name of the folder or file (the id of a single text is
            the name alone).
        ids_are_positions: Whether a row without an id gets `NAME/file.jsonl:LINE` instead of a hash.
        csv_strings: Whether all columns of .csv and .tsv files stay text, and empty cells empty texts.
        separator: The character between the values of .csv and .tsv files, or "tab"; None: the one that the first lines
            show among comma, tab, semicolon and vertical bar.
        encoding: Encoding of the text files; None: UTF-8, UTF-16 with a byte order mark, and Windows-1252 in .csv,
            .tsv, .txt and .md files that are not UTF-8 and look like it, which one line says.

    Raises:
        SettingsError: When called, if fields other than metadata are named for texts, which have none, or the separator
            or encoding is none.
        CorpusError: When called, if the source is missing or of no known kind; during iteration, if a file cannot be
            read, a row is malformed, an id occurs twice, or there is no document.
    """
    names = fields or FieldNames()
    named = Source(name or default_name(source), None, ids_are_positions, fields=names, strings=csv_strings, files=True)
    layout = TableFormat(header, quotes, separator, encoding)
    entries = read_entries(source, named, on_error=on_error, on_skip=on_skip, layout=layout, types_known=False)
    return (entry.document for entry in entries)


def with_types(corpus: str | Path | Rows, source: Source, layout: TableFormat) -> Source:
    """The source with the types of the metadata columns of its CSV and TSV files, which are read once for it.

    Raises:
        CorpusError: As `read_corpus` for files that cannot be read, are missing, or of no known kind.
    """
    if isinstance(corpus, Rows) or source.strings or is_named(corpus) or holds_texts(to_path(corpus)):
        return source
    path = to_path(corpus)
    return decide_types(str(corpus), find_source_tables(path, several=is_several(path)), source, layout)


def read_entries(
    corpus: str | Path | Rows,
    source: Source,
    *,
    on_error: OnError = "raise",
    on_skip: Report | None = None,
    layout: TableFormat,
    types_known: bool = True,
    check: FileCheck | None = None,
    share: Share | None = None,
) -> Iterator[Entry]:
    """Documents as `read_corpus` gives them, with the fields of this source and ids made for it.

    Args:
        corpus: As for `read_corpus`.
        source: Its name, fields and types of columns.
        on_error: As for `read_corpus`.
        on_skip: As for `read_corpus`.
        layout: How CSV and TSV files are read.
        types_known: Whether the source went through `with_types`; otherwise, reading begins with it.
        check: Decides which files that are a document each are not read, as they are known; None: all are read.
        share: The part of the corpus that is read; one that is not the whole may be empty. None: all of it.
    """
    report = SkipCounter(choose_report(on_error, on_skip))
    name, partial = str(corpus), share is not None and not share.whole
    if not name:
        raise CorpusError(f"the corpus is an empty string; expected {EXPECTED}")
    chosen = source.fields
    if isinstance(corpus, Rows):
        columns = chosen.columns()
        make = DocumentMaker(name, chosen, columns, same_fields=False)
        records = read_rows(corpus, report, columns, make.left_out)
        maker = IdMaker(source, files=False, single=True)
        return _to_entries(name, records, report, maker, make, partial=partial)
    if name in ("python-docs:", "python-docs:all"):
        check_no_fields(name, chosen)
        return (Entry(document, None) for document in read_python_docs(packages=name.endswith("all")))
    if name.startswith("hub:"):
        columns = chosen.columns()
        make = DocumentMaker(name, chosen, columns, same_fields=True)
        maker = IdMaker(source, files=False, single=True)
        return _to_entries(name, read_hub(name, report, columns), report, maker, make)
    path, columns = to_path(corpus), source.known_columns()
    if path == STANDARD_INPUT:
        make = DocumentMaker(name, chosen, columns, same_fields=False)
        records = read_records(path, report, columns, layout)
        return _to_entries(name, records, report, IdMaker(source, files=False, single=True), make)
    several = is_several(path)
    if holds_texts(path):
        return read_file_entries(path, source, report, layout.encoding, check, several=several, share=share)
    files = find_source_tables(path, several=several)
    records = read_tables(path, files, report, columns, layout, share)
    make = DocumentMaker(name, chosen, columns, same_fields=len(files) == 1 and is_table(files[0]))

    def read_typed() -> Iterator[Entry]:
        typed = source if types_known else decide_types(name, files, source, layout)
        maker = IdMaker(source, files=False, single=not several)
        yield from _to_entries(name, records, report, maker, make, typed, partial=partial)

    return read_typed()


def cut_corpus(corpus: str | Path, source: Source, least: int, most: int) -> list[Share]:
    """Shares that several processes read at the same time; one of all files if it cannot be cut.

    Args:
        corpus: As for `read_corpus`.
        source: Its source.
        least: Minimum size of a share in bytes.
        most: Maximum number of shares.

    Raises:
        CorpusError: The corpus is missing, or cannot be listed.
    """
    if is_named(corpus):
        return [Share(0, 1, 1)]
    path = to_path(corpus)
    several = is_several(path)
    files = (
        [file.path for file in list_source_files(path, source)]
        if holds_texts(path)
        else find_source_tables(path, several=several)
    )
    with readable(path):
        return cut_files([file.stat().st_size for file in files], least, most)


def find_source_files(corpus: str | Path | Rows, source: Source) -> Iterator[TextFile] | None:
    """The files of a source whose files are a document each, with the ids of these; None for another source.

    Raises:
        CorpusError: The corpus is missing, or cannot be listed.
    """
    if isinstance(corpus, Rows) or is_named(corpus):
        return None
    path = to_path(corpus)
    is_several(path)  # raises if it is missing
    return list_source_files(path, source) if holds_texts(path) else None


def _to_entries(
    source: str,
    records: Iterator[Record],
    report: SkipCounter,
    ids: IdMaker,
    make: DocumentMaker,
    typed: Source | None = None,
    *,
    partial: bool = False,
) -> Iterator[Entry]:
    seen = IdSet()
    types = None if typed is None or typed.strings else types_of(typed)
    mixed = MixedTypes(source)
    for record in records:
        try:
            before = len(make.left_out)
            document = record.document or make(record.fields)
            if len(make.left_out) > before:
                note_left_out(record.place, tuple(sorted(make.left_out)))
            made = not document.id
            if made:
                content = document.title, document.text, document.metadata
                document = replace(document, id=ids.make(record.default_id, content, seen))
            elif not seen.add(document.id):
                raise ValueError(
                    f'duplicate id {document.id!r:.80}; ids must be unique (on_error="skip", --on-error skip: the '
                    "first stays)"
                )
            if record.cells and types is not None:  # after the id, which does not change with the types
                document = replace(document, metadata=convert_metadata(document.metadata, types))
            mixed.check(document.metadata, record.place)
        except ValueError as error:
            report(f"{record.place}: {error}")
        else:
            yield Entry(document, record.default_id if made else None)
    if partial:
        return
    if not len(seen):
        raise CorpusError(f"{source}: an empty corpus: no document in it{report.summary()}")
    make.finish()
