"""Types of the metadata columns of CSV and TSV files."""

import gzip
import os
from pathlib import Path
from threading import Thread

import pytest

from llm2comp.corpus.documents import Document
from llm2comp.corpus.read import FieldNames, read_corpus
from llm2comp.errors import CorpusError


def read(path: Path, *lines: str, **settings: object) -> list[object]:
    """The values of the column `value` of a CSV file with these cells."""
    path.write_text("id,text,value\n" + "".join(f"{row},t,{line}\n" for row, line in enumerate(lines)))
    return [document.metadata["value"] for document in read_corpus(path, **settings)]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "-2", "0", ""], [1, -2, 0, None]),
        (["1", "2.50", " 3", "  "], [1, 2.5, 3, None]),
        (["0.1234567890123456", "1e-05", "1.5e6", ".5", "-0.0"], [0.1234567890123456, 1e-05, 1.5e6, 0.5, 0.0]),
        (["9223372036854775807", "-9223372036854775808"], [2**63 - 1, -(2**63)]),
        (["true", "False", "TRUE", ""], [True, False, True, None]),
        (["2024-01-31", "1999-12-01"], ["2024-01-31", "1999-12-01"]),
        (["2024-01-31 08:30", "2024-01-31T08:30:01.5"], ["2024-01-31T08:30:00", "2024-01-31T08:30:01.500000"]),
        (["2024-01-31T08:30:00Z", "2024-01-31T08:30+0100"], ["2024-01-31T08:30:00+00:00", "2024-01-31T08:30:00+01:00"]),
    ],
)
def test_columns_whose_values_are_all_of_a_type(cells: list[str], values: list[object], tmp_path: Path) -> None:
    typed = read(tmp_path / "c.csv", *cells)
    assert typed == values
    assert list(map(type, typed)) == list(map(type, values))
    assert read(tmp_path / "c.csv", *cells, csv_strings=True) == cells


@pytest.mark.parametrize(
    "cells",
    [
        ["1", "007"],  # a code
        ["00"],
        ["00.5"],
        ["+49"],
        ["1,5".replace(",", ";")],
        ["5."],
        ["1e5"],  # a code too
        ["12E34"],
        ["nan", "1"],
        ["inf"],
        ["1.5e400"],
        ["9223372036854775808"],
        ["0.12345678901234567890"],
        ["1_000"],
        ["\u0661"],  # an Arabic digit
        ["yes"],
        ["true", "1"],
        ["2024-02-30"],
        ["20240131x"],
        ["31.01.2024"],
        ["01/02/2024"],
        ["2024-W05"],
        ["2024-01-31", "2024-01-31T08:00"],
        ["2024-01-31T08:00", "2024-01-31T08:00Z"],
        ["2024-01-31T25:00"],
        ["2024-01-31T08:00:00.123456789"],
    ],
)
def test_other_columns_stay_as_they_are(cells: list[str], tmp_path: Path) -> None:
    assert read(tmp_path / "c.csv", *cells) == cells


def test_one_value_of_the_last_row_decides(tmp_path: Path) -> None:
    cells = [str(row) for row in range(3000)]
    assert read(tmp_path / "c.csv", *cells) == list(range(3000))
    assert read(tmp_path / "c.csv", *cells, "x") == [*cells, "x"]


def test_ids_titles_and_texts_are_text(tmp_path: Path) -> None:
    path = tmp_path / "c.tsv"
    path.write_text("id\ttitle\ttext\tpage_id\tyear\n1\t2\t3\t4\t5\n")
    assert list(read_corpus(path)) == [Document("1", "2", "3", {"page_id": "4", "year": 5})]
    fields = FieldNames(text="year", metadata=("page_id", "text"))
    assert list(read_corpus(path, fields=fields)) == [Document("1", "2", "5", {"page_id": 4, "text": 3})]


def test_empty_cells_have_no_value(tmp_path: Path) -> None:
    assert read(tmp_path / "c.csv", "a", "", " ") == ["a", None, " "]
    assert read(tmp_path / "c.csv", "", "") == [None, None]
    assert read(tmp_path / "c.csv", "a", "", csv_strings=True) == ["a", ""]


def test_ids_made_of_rows_do_not_depend_on_types(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("text,year\na,1\nb,\n")
    ids = [document.id for document in read_corpus(path, csv_strings=True)]
    assert [document.id for document in read_corpus(path)] == ids
    path.write_text("text,year\na,1\nb,\nc,x\n")
    assert [document.id for document in read_corpus(path)][:2] == ids


def test_a_pipe_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    os.mkfifo(path)
    writer = Thread(target=lambda: path.write_text("id,text,year\n1,a,1999\n"))
    writer.start()
    assert [document.metadata for document in read_corpus(path)] == [{"year": "1999"}]
    writer.join()


def test_all_files_of_a_source_decide(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.csv").write_text("id,text,year,zip\n1,a,1999,10115\n")
    with gzip.open(tmp_path / "b.csv.gz", "wt") as file:
        file.write("id,text,zip,year\n2,b,01067,2000\n")
    (tmp_path / "c.jsonl").write_text('{"id": 3, "text": "c", "year": "2001"}\n')
    assert [document.metadata for document in read_corpus(tmp_path)] == [
        {"year": 1999, "zip": "10115"},
        {"year": 2000, "zip": "01067"},
        {"year": "2001"},
    ]
    assert f"{tmp_path}: columns read as number: year (--csv-strings keeps all as text)" in caplog.messages


def test_malformed_rows_are_reported_once(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("id,text,year\n1,a,1\n2,b,2,3\n")
    with pytest.raises(CorpusError, match=":3: 4 fields"):
        list(read_corpus(path))
    messages = list[str]()
    assert len(list(read_corpus(path, on_error="skip", on_skip=messages.append))) == 1
    assert len(messages) == 1
