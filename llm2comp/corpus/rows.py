"""Documents in memory as a corpus: our own, dicts, data frames, documents of LangChain and nodes of LlamaIndex.

The libraries are told by what their objects have, and none is imported.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm2comp.corpus.columns import Columns, rename_fields
from llm2comp.corpus.documents import Document
from llm2comp.corpus.parquet import to_rows
from llm2comp.corpus.records import Record
from llm2comp.corpus.report import Report, list_names
from llm2comp.corpus.scalars import id_text, to_json
from llm2comp.errors import CorpusError, SettingsError

__all__ = ["Rows", "as_corpora", "read_rows"]

_EXPECTED = "a Document, a dict, a Document of LangChain or a node of LlamaIndex"
_SLICE_ROWS = 256


class Rows:
    """Documents in memory, as a source named `rows`.

    Args:
        rows: An iterable, which is read once, or a data frame of pandas, polars or Arrow.
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __str__(self) -> str:
        return "rows"


def as_corpora(corpora: Any) -> list[str | Path | Rows]:
    """A list of corpora: the paths and names given, one or several, or else one corpus of the rows given.

    Raises:
        SettingsError: It is neither.
    """
    if isinstance(corpora, str | Path | Rows):
        return [corpora]
    if isinstance(corpora, Sequence) and all(isinstance(corpus, str | Path | Rows) for corpus in corpora):
        return list(corpora)
    is_frame = _is_arrow(corpora) or _is_polars(corpora) or _is_pandas(corpora)
    if not is_frame and (isinstance(corpora, Mapping | bytes) or not isinstance(corpora, Iterable)):
        hint = "; call collect() first" if type(corpora).__name__ == "LazyFrame" else ""
        raise SettingsError(
            f"corpora is of type {type(corpora).__name__}, expected paths and names of corpora, an iterable of "
            f"documents or dicts, or a data frame{hint}"
        )
    return [Rows(corpora)]


def read_rows(rows: Rows, report: Report, columns: Columns, left_out: set[str]) -> Iterator[Record]:
    """The rows in their order; those that are documents already come as such.

    Errors of the iterable itself pass through.

    Args:
        rows: Read lazily, and once.
        report: Receives messages about rows of other types, with their numbers from 1.
        columns: Known names of fields, for dicts and data frames.
        left_out: Gets the names of fields whose values metadata cannot hold, for documents.
    """
    for number, row in _iterate(rows.rows, report):
        place = f"row {number}"
        try:
            record = _to_record(row, place, f"rows:{number}", columns, left_out)
        except ValueError as error:
            report(f"{place}: {error}")
        else:
            yield record


def _to_record(row: Any, place: str, default_id: str, columns: Columns, left_out: set[str]) -> Record:
    if isinstance(row, Mapping):
        fields = rename_fields({str(name): value for name, value in row.items()}, columns, "rows")
        return Record(place, default_id, fields)
    document = _to_document(row)
    for role, value in (("title", document.title), ("text", document.text)):
        if not isinstance(value, str):
            raise ValueError(f"the {role} is of type {type(value).__name__}, expected a string")
    identifier = "" if document.id in (None, "") else id_text(document.id)
    metadata = to_json(dict(document.metadata), left_out=left_out)
    return Record(place, default_id, {}, document=replace(document, id=identifier, metadata=metadata))


def _to_document(row: Any) -> Document:
    """The document of an object of ours or of another library.

    Raises:
        ValueError: It is none.
    """
    if isinstance(row, Document):
        return row
    if hasattr(row, "page_content") and hasattr(row, "metadata"):  # LangChain
        return Document(getattr(row, "id", None) or "", "", row.page_content, row.metadata)
    node = getattr(row, "node", row)  # LlamaIndex: a node with a score holds the node
    if hasattr(node, "node_id") and hasattr(node, "get_content"):
        return Document(node.node_id, "", node.get_content(), node.metadata)
    raise ValueError(f"of type {type(row).__name__}, expected {_EXPECTED}")


def _iterate(rows: Any, report: Report) -> Iterator[tuple[int, Any]]:
    """The rows with their numbers from 1; those of a data frame are dicts."""
    if _is_arrow(rows):
        yield from _read_batches(rows.to_batches(max_chunksize=_SLICE_ROWS), report)
    elif _is_polars(rows):
        slices = (part for part in rows.iter_slices(_SLICE_ROWS))
        yield from _read_batches((batch for part in slices for batch in part.to_arrow().to_batches()), report)
    elif _is_pandas(rows):
        names = list(map(str, rows.columns))
        if len(set(names)) < len(names):
            raise CorpusError(f"rows: a column name occurs twice: {list_names(names)}")
        for number, values in enumerate(rows.itertuples(index=False, name=None), start=1):
            yield number, dict(zip(names, values, strict=True))
    else:
        yield from enumerate(rows, start=1)


def _read_batches(batches: Iterable[Any], report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for batch in batches:
        yield from to_rows(batch, "rows", number, report)
        number += batch.num_rows


def _is_arrow(rows: Any) -> bool:
    return hasattr(rows, "to_batches") and hasattr(rows, "schema")


def _is_polars(rows: Any) -> bool:
    return hasattr(rows, "iter_slices") and hasattr(rows, "to_arrow")


def _is_pandas(rows: Any) -> bool:
    return hasattr(rows, "itertuples") and hasattr(rows, "columns")
