"""Tab-separated test sets: columns by name in a header line, no quoting, errors that name file and line."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from llm2comp.corpus.read import open_text
from llm2comp.errors import CorpusError

__all__ = ["LabelledTexts", "read_labelled_texts", "read_rows", "task_name"]

_SPLITS = ("train", "dev", "validation", "test")


class LabelledTexts(NamedTuple):
    """n texts, their classes, and the places (`FILE:LINE`) where they were read."""

    texts: list[str]
    labels: list[str]
    places: list[str]


def read_rows(path: str | Path, columns: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """The place (`FILE:LINE`) of each line of a file, and its fields in these columns; the file can be compressed.

    Raises:
        CorpusError: The file cannot be read, a column is missing, or a line is malformed.
    """
    with open_text(path) as lines:
        header = lines.readline().rstrip("\r\n").split("\t")
        if not set(columns) <= set(header):
            raise CorpusError(
                f"{path}:1: the columns are {', '.join(header)!r}; expected a tab-separated header with "
                f"{', '.join(columns)}"
            )
        positions = [header.index(column) for column in columns]
        for number, line in enumerate(lines, start=2):
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) != len(header):
                raise CorpusError(
                    f"{path}:{number}: {len(fields)} tab-separated fields, expected {len(header)} as in the header"
                )
            yield f"{path}:{number}", [fields[position] for position in positions]


def read_labelled_texts(path: str | Path) -> LabelledTexts:
    """Texts and their classes, from a file with the columns text and label.

    Raises:
        CorpusError: The file cannot be read, is malformed or has no text, or a label is empty.
    """
    rows = LabelledTexts([], [], [])
    for place, (text, label) in read_rows(path, ("text", "label")):
        if not label.strip():
            raise CorpusError(f"{place}: the label is empty, expected a class")
        rows.texts.append(text)
        rows.labels.append(label)
        rows.places.append(place)
    if not rows.texts:
        raise CorpusError(f"{path}: no text in it, expected lines of text and label below the header")
    return rows


def task_name(path: str | Path) -> tuple[str, str | None]:
    """Name and split of the task in a file: (stsb, test) of `stsb/test.tsv.gz`, (stsb, None) of `stsb.tsv`."""
    file = Path(path).resolve()
    stem = file.name.partition(".")[0]
    return (file.parent.name, stem) if stem in _SPLITS else (stem, None)
