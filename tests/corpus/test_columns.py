"""Names of columns: in any case and with blanks around them, none at all, and files with another separator."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from llm2comp.corpus.columns import Columns, match_names
from llm2comp.corpus.documents import Document
from llm2comp.corpus.read import read_corpus, read_qrels, read_queries
from llm2comp.errors import CorpusError, SettingsError

MATCHED = "names match without regard to case and surrounding blanks"
NAMELESS = "has no name in the header, so its values are left out"


def write_all(folder: Path, row: dict[str, Any]) -> list[Path]:
    """The row as a file of every kind."""
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        lines = (delimiter.join(row), delimiter.join(map(str, row.values())))
        (folder / f"c{suffix}").write_text("\n".join(lines))
    (folder / "c.jsonl").write_text(json.dumps(row))
    parquet.write_table(pyarrow.table({name: [value] for name, value in row.items()}), folder / "c.parquet")
    return [folder / f"c{suffix}" for suffix in (".csv", ".tsv", ".jsonl", ".parquet")]


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["ID", "Text", "TITLE"], '"ID" is read as id, "Text" is read as text, "TITLE" is read as title'),
        ([" id ", "text", "title"], '" id " is read as id'),
        (["\u00a0DocID", "Contents ", "Title"], '"\u00a0DocID" is read as docid, "Contents " is read as contents, '),
    ],
)
def test_names_match_without_case_and_blanks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, names: list[str], line: str
) -> None:
    for path in write_all(tmp_path, dict(zip([*names, "Year"], ["a", "t", "T", "1999"], strict=True))):
        caplog.clear()
        for _ in range(2):
            assert list(read_corpus(path, csv_strings=True)) == [Document("a", "T", "t", {"Year": "1999"})]
        [message] = [each for each in caplog.messages if "id-field" not in each]
        assert message.startswith(f"{path}: {line}")
        assert message.endswith(MATCHED)


def test_queries_and_judgements(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in write_all(tmp_path, {"QID": "q", " Query": "t"}):
        assert read_queries(path) == {"q": "t"}
    for path in write_all(tmp_path, {"Query-ID": "q", "corpus-id": "d", "SCORE ": 2}):
        assert read_qrels(path) == {"q": {"d": 2}}
    (tmp_path / "words.txt").write_text("Query-ID Iteration DocNo Rel\nq 0 d 1\n")
    assert read_qrels(tmp_path / "words.txt") == {"q": {"d": 1}}
    assert caplog.text.count(MATCHED) == 8


@pytest.mark.parametrize(
    ("row", "document"),
    [
        ({"id": "a", "ID": "b", "text": "t", "Text": "u"}, Document("a", "", "t", {"ID": "b", "Text": "u"})),
        ({"docid": "a", "ID": "b", "contents": "t"}, Document("a", "", "t", {"ID": "b"})),
        ({"DocID": "a", "ID": "b", "text": "t"}, Document("b", "", "t", {"docid": "a"})),  # id goes before docid
    ],
)
def test_a_name_as_it_is_known_goes_first(tmp_path: Path, row: dict[str, str], document: Document) -> None:
    for path in write_all(tmp_path, row):
        assert list(read_corpus(path)) == [document]


def test_two_names_that_may_mean_the_same_are_refused(tmp_path: Path) -> None:
    for path in write_all(tmp_path, {"ID": "a", "Id": "b", "text": "t"}):
        with pytest.raises(CorpusError, match=rf'^{path}:1: the names "ID" and "Id" may both mean id; rename one$'):
            list(read_corpus(path))


def test_float_ids_under_a_name_in_another_case(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("ID,Text\n1.0,a\n2.0,b\n")
    assert [document.id for document in read_corpus(tmp_path / "c.csv")] == ["1", "2"]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["id", "ID", " iD", "_id", "text", "TEXT ", "year", "", " "]), unique=True))
def test_known_names_stay_and_no_two_become_one(names: list[str]) -> None:
    groups = frozenset(["id", "_id"]), frozenset(["text"])
    try:
        matched = match_names(names, Columns(groups[1], groups[0], {}, groups), "source")
    except ValueError:
        assert {"ID", " iD"} <= set(names)
        return
    assert len(set(matched)) == len(matched) == len(names)
    assert all(new == old or new == old.strip().lower() for old, new in zip(names, matched, strict=True))
    assert all(old in matched for old in names if old in ("id", "_id", "text"))


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("id,text,\n1,a,\n2,b,\n", ""),
        ("id,text,,\n1,a,,\n2,b, ,\n", ""),
        ("id,text,\n1,a,x\n2,b,y\n", f"column 3 {NAMELESS}"),
        (",id,text\n0,1,a\n1,2,b\n", f"column 1 {NAMELESS}"),  # as pandas writes an index
    ],
)
def test_columns_without_a_name_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, content: str, note: str
) -> None:
    path = tmp_path / f"c{suffix}"
    path.write_text(content if suffix == ".csv" else content.replace(",", "\t"))
    for _ in range(2):
        assert list(read_corpus(path)) == [Document("1", "", "a"), Document("2", "", "b")]
    assert caplog.messages == [f"{path}: {note}"] * bool(note)


@pytest.mark.parametrize(
    ("name", "content", "separator"),
    [
        ("c.csv", "id;text\n1;a, b\n", "a semicolon"),
        ("c.csv", "Id;Text;note\n1;a, b;c\n", "a semicolon"),
        ("c.csv", "id;text;a, b\n1;a, b;x\n", "a semicolon"),
        ("c.csv", "title;text;id\n;a, b;1\n", "a semicolon"),
        ("c.csv", "id\ttext\n1\ta, b\n", "a tab"),
        ("c.csv", "id|text|x\n1|a, b|\n", "a vertical bar"),
        ("c.csv", '"id";"text"\n"1";"a, b"\n', "a semicolon"),
        ("c.tsv", 'id,text\n1,"a, b"\n', "a comma"),
        ("c.tsv", '"id";"text"\n1;a, b\n', "a semicolon"),
    ],
)
@pytest.mark.parametrize("header", [None, True])
def test_the_separator_is_recognised(
    tmp_path: Path, name: str, content: str, separator: str, header: bool | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    path.write_text(content)
    for _ in range(2):
        assert [(one.id, one.text) for one in read_corpus(path, header=header)] == [("1", "a, b")]
        assert list(read_queries(path, header=header).items()) == [("1", "a, b")]
    line = f"{path}: the values are separated by {separator} (--separator chooses another)"
    assert caplog.messages.count(line) == 1


@pytest.mark.parametrize(
    ("name", "content", "pairs"),
    [
        ("c.csv", "1;a, b\n2;b\n", [("1", "a, b"), ("2", "b")]),
        ("c.csv", "1;a, b\n2;b, c\n", [("1;a", " b"), ("2;b", " c")]),  # a comma in each line is as good a sign
        ("c.tsv", "1|a\n2|b\n", [("1", "a"), ("2", "b")]),
    ],
)
def test_the_separator_without_a_header(
    tmp_path: Path, name: str, content: str, pairs: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_text(content)
    assert [(one.id, one.text) for one in read_corpus(tmp_path / name)] == pairs


def test_the_separator_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("id~text\n1~a,b\n")
    assert [(one.id, one.text) for one in read_corpus(path, separator="~")] == [("1", "a,b")]
    path.write_text("id\ttext\n1\ta;b\n")
    for tab in ("tab", "\\t", "\t"):
        assert [(one.id, one.text) for one in read_corpus(path, separator=tab)] == [("1", "a;b")]
    for wrong in ("", ";;", '"', "\n"):
        with pytest.raises(SettingsError, match="separator is"):
            read_corpus(path, separator=wrong)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", "a;b\n1;2\n3;4;5\n", "1: the first line has a semicolon between .*, expected a comma; --separator"),
        ("c.csv", 'id,text\n1, "a, b"\n', "2: 3 fields, expected 2 .*; a blank stands before a quote, which opens"),
    ],
)
@pytest.mark.parametrize("header", [None, True])
def test_the_separator_is_named_as_the_cause(
    tmp_path: Path, name: str, content: str, message: str, header: bool | None
) -> None:
    path = tmp_path / name
    path.write_text(content)
    for read in (read_corpus, read_queries):
        with pytest.raises(CorpusError, match=rf"^{path}:{message}") as caught:
            list(read(path, header=header))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.csv", "id,text; or more,text\n1,x,a\n"),
        ("c.csv", "1,id;text\n"),
        ("c.csv", "text\na;b\n"),
        ("c.tsv", "id\ttext,title\ttext\n1\tx\ta, b\n"),
    ],
)
def test_other_separators_inside_values_are_no_separators(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert len(list(read_corpus(tmp_path / name))) == 1


def test_blanks_around_ids_are_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "c.csv"
    path.write_text("id,text\n1 , a\n 2,b \n")
    for _ in range(2):
        assert [document.id for document in read_corpus(path)] == ["1 ", " 2"]
    [line] = caplog.messages
    assert line.startswith(f"{path}: some ids have blanks around them")
    caplog.clear()
    (tmp_path / "d.csv").write_text("id,text\n1, a\n,b \n3.0,c\n")
    with pytest.raises(CorpusError, match=":3: the id"):
        list(read_corpus(tmp_path / "d.csv"))
    assert caplog.messages == []


def test_blanks_before_quotes_are_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "c.csv"
    path.write_text('id,text\n1, "a"\n2, "b"\n')
    assert [document.text for document in read_corpus(path)] == [' "a"', ' "b"']
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{path}: line 2: quotes are part of the text; a blank stands before a quote")


@pytest.mark.parametrize("first", ["sep=;", "SEP=;\r", '"sep=;"'])
def test_the_separator_that_a_line_tells_excel(tmp_path: Path, first: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(f"{first}\nid;text\n1.0;a, b\n2.0;c;d\n", newline="")
    messages = list[str]()
    documents = read_corpus(path, on_error="skip", on_skip=messages.append)
    assert [(one.id, one.text) for one in documents] == [("1", "a, b")]
    assert [message.partition(": ")[0] for message in messages] == [f"{path}:4"]
    path.write_text("sep=\n")
    with pytest.raises(CorpusError):
        list(read_corpus(path))
