"""First rows of CSV and TSV files: names of columns, or a row that is not lost."""

import logging
from pathlib import Path

import pytest

from llm2comp.corpus.read import read_corpus, read_queries

HEADER = "the first line is read as the header"
MATCHED = "names match without regard to case"
NAMELESS = "column 1 has no name in the header, so its values are left out"
ROW = "so it is a row, and the columns are id, text"


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize(
    ("first", "ids", "note"),
    [
        ("id,text", ["2"], ""),
        ("text,id", ["t2"], ""),
        ("_id,title,text", ["2"], ""),
        ("1,text", ["1", "2"], ROW),
        ("q1,Body", ["q1", "2"], ROW),
        ("1,text,body", ["1", "2"], ROW),
        ("1,id,text", ["1", "2"], ROW),
        ("1,what is this", ["1", "2"], ROW),
        ("text,label", None, HEADER),
        ("label,text", None, HEADER),
        ("Id,text", ["2"], MATCHED),
        (",text", None, f"{HEADER}|{NAMELESS}"),  # as pandas writes an index
        ("1,text,more,more2", None, HEADER),  # there is no file of four columns without a header line
        ("text,one,two,three", None, ""),
    ],
)
def test_no_first_row_is_lost_without_a_line_about_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, first: str, ids: list[str] | None, note: str
) -> None:
    path = tmp_path / f"c{suffix}"
    rows = [first, ",".join(["2", "t2", "t3", "t4"][: first.count(",") + 1])]
    path.write_text("\n".join(rows).replace(",", "," if suffix == ".csv" else "\t"))
    documents = list(read_corpus(path, csv_strings=True))
    if ids is None:
        assert len(documents) == 1
        assert documents[0].id.startswith(path.name)
    else:
        assert [document.id for document in documents] == ids
    notes = note.split("|") if note else []
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * len(notes)
    assert all(part in caplog.text for part in notes)
    assert ("--header" in caplog.text, "--no-header" in caplog.text) == (ROW in notes, HEADER in notes)


def test_the_first_query_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "queries.tsv"
    path.write_text("7\tquery\n8\thello\n")
    assert read_queries(path) == {"7": "query", "8": "hello"}
    assert read_queries(path, header=False) == read_queries(path)
