"""Fields of rows: known names by precedence, and what users choose, in every kind of file."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from llm2comp.corpus.documents import Document
from llm2comp.corpus.fields import ID_FIELDS, TEXT_FIELDS, TITLE_FIELDS, FieldNames
from llm2comp.corpus.read import read_corpus
from llm2comp.errors import CorpusError, SettingsError

TICKET = {"Ticket No": "007", "Subject": "Printer", "Message": "It smokes.", "Answer": "Buy a new one.", "Year": "1999"}


def write(folder: Path, kind: str, *rows: dict[str, Any]) -> Path:
    path = folder / f"c{kind}"
    if kind == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    else:
        separator = {".csv": ",", ".tsv": "\t"}[kind]
        lines = [rows[0].keys(), *(map(str, row.values()) for row in rows)]
        path.write_text("".join(separator.join(line) + "\n" for line in lines))
    return path


KINDS = pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl", ".parquet"])


@KINDS
def test_chosen_fields(kind: str, tmp_path: Path) -> None:
    """Texts are joined in the order of the choice, and other fields stay metadata under their own names."""
    path = write(tmp_path, kind, TICKET)
    names = FieldNames("Ticket No", "Subject", ("Answer", "Message"))
    expected = Document("007", "Printer", "Buy a new one.\n\nIt smokes.", {"Year": "1999"})
    assert list(read_corpus(path, fields=names, csv_strings=True)) == [expected]


@KINDS
def test_names_match_without_regard_to_case(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, kind, TICKET)
    names = FieldNames("TICKET NO ", "subject", ("message",), ("answer",))
    assert list(read_corpus(path, fields=names)) == [
        Document("007", "Printer", "It smokes.", {"answer": "Buy a new one."})
    ]


@KINDS
def test_chosen_metadata(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, kind, {"id": "a", "text": "t", "year": "1999", "page": "3"})
    chosen = FieldNames(metadata=("page",))
    assert [one.metadata for one in read_corpus(path, fields=chosen, csv_strings=True)] == [{"page": "3"}]
    assert [one.metadata for one in read_corpus(path, fields=FieldNames(metadata=()))] == [{}]


def test_metadata_within_metadata(tmp_path: Path) -> None:
    path = write(tmp_path, ".jsonl", {"id": "a", "text": "t", "metadata": {"year": 1, "page": 2}, "lang": "en"})
    for chosen, expected in (
        (("page",), {"page": 2}),
        (("metadata",), {"year": 1, "page": 2}),
        (("lang", "year"), {"year": 1, "lang": "en"}),
    ):
        assert [one.metadata for one in read_corpus(path, fields=FieldNames(metadata=chosen))] == [expected]


@KINDS
def test_a_field_that_no_row_of_a_table_has(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, kind, TICKET)
    for names, absent in (
        (FieldNames(id="nr", text=("Message",)), "nr"),
        (FieldNames(text=("Body",)), "Body"),
        (FieldNames(text=("Message",), title="Titel"), "Titel"),
        (FieldNames(text=("Message",), metadata=("lang", "Year")), "lang"),
    ):
        must = kind != ".jsonl" or absent in ("nr", "Body")
        if must:
            with pytest.raises(CorpusError, match=rf"{absent}.*Ticket No, Subject, Message, Answer, Year"):
                list(read_corpus(path, fields=names))
        else:  # rows of JSON may leave fields out, and the last row may have it
            list(read_corpus(path, fields=names))
            there = "the fields are Ticket No, Subject, Message, Answer, Year"
            assert caplog.messages[-1] == f"{path}: no row has the field {absent}; {there}"


def test_errors_list_all_fields(tmp_path: Path) -> None:
    names = [f"Column {letter}" for letter in "ABCDEFGHIJKL"]
    path = write(tmp_path, ".csv", dict.fromkeys(["id", *names], "x"))
    with pytest.raises(CorpusError, match=f"no field Colum; the fields are id, {', '.join(names)}$"):
        list(read_corpus(path, fields=FieldNames(text=("Colum",), metadata=())))
    with pytest.raises(CorpusError, match=f", found id, {', '.join(names)}; --text-field"):
        list(read_corpus(path))


def test_errors_name_fields_as_their_files_do(tmp_path: Path) -> None:
    rows = [
        ("ID,TITLE,Wording\n1,t,x\n", FieldNames(), "no text; .*, found ID, TITLE, Wording; "),
        ("ID,Text,Year\n1,t,x\n", FieldNames(metadata=("yaer",)), "no field yaer; the fields are ID, Text, Year$"),
        ("NR,Text,Year\n,t,x\n", FieldNames(id="nr"), 'the id in "NR" is .., expected'),
    ]
    for content, names, message in rows:
        (tmp_path / "c.csv").write_text(content)
        with pytest.raises(CorpusError, match=message):
            list(read_corpus(tmp_path / "c.csv", fields=names))
    path = write(tmp_path, ".jsonl", {"ID": "a", "text": "t"}, {"id": "b", "TEXT": None})
    with pytest.raises(CorpusError, match=r'c\.jsonl:2: the text in "TEXT" is null'):
        list(read_corpus(path))
    path = write(tmp_path, ".jsonl", {"ID": "a", "text": "t"}, {"id": "b", "words": "t"})
    with pytest.raises(CorpusError, match=r"c\.jsonl:2: no text; .*, found id, words; "):
        list(read_corpus(path))


def test_rows_of_json_may_lack_a_title_and_one_of_several_texts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"id": "1", "a": "x"}, {"id": "2", "b": "y", "t": "T"}, {"id": "3", "a": None, "b": "z"}]
    path = write(tmp_path, ".jsonl", *rows)
    documents = list(read_corpus(path, fields=FieldNames(title="t", text=("a", "b"))))
    assert [(one.id, one.title, one.text) for one in documents] == [("1", "", "x"), ("2", "T", "y"), ("3", "", "z")]
    assert not [message for message in caplog.messages if "no row has" in message]


def test_a_row_without_the_chosen_text_or_id_is_an_error(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        ".jsonl",
        {"nr": "1", "a": "x"},
        {"nr": "2", "text": "y"},
        {"text": "y", "a": "z"},
        {"nr": None, "a": "z"},
    )
    skipped: list[str] = []
    names = FieldNames(id="nr", text=("a",))
    documents = list(read_corpus(path, fields=names, on_error="skip", on_skip=skipped.append))
    assert [one.id for one in documents] == ["1"]
    assert skipped == [
        f"{path}:2: no text; expected the field a, found nr, text",
        f'{path}:3: no id in the field "nr"; the fields are text, a',
        f'{path}:4: no id in the field "nr"; the fields are nr, a',
    ]


def test_numbers_and_dates_as_text(tmp_path: Path) -> None:
    path = write(tmp_path, ".parquet", {"nr": 7, "title": 12.5, "text": 1999})
    names = FieldNames("nr", "title", ("text",))
    assert list(read_corpus(path, fields=names)) == [Document("7", "12.5", "1999")]


@pytest.mark.parametrize(("role", "known"), [("id", ID_FIELDS), ("title", TITLE_FIELDS), ("text", TEXT_FIELDS)])
def test_known_names_in_order_of_precedence(role: str, known: tuple[str, ...], tmp_path: Path) -> None:
    others = {name: name for name, at in (("id", "id"), ("text", "text")) if at != role}
    for first, second in zip(known, known[1:], strict=False):
        path = write(tmp_path, ".jsonl", {**others, second: "second", first: "first"})
        [document] = read_corpus(path)
        assert getattr(document, role) == "first"
        assert document.metadata == {second: "second"}


def test_recognised_names_are_said_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = ({"page_id": str(row), "page_title": "T", "body": "t"} for row in range(3))
    path = write(tmp_path, ".csv", *rows)
    for _ in range(2):
        assert list(read_corpus(path))[2] == Document("2", "T", "t")
    assert caplog.messages == [
        f'{path}: recognised: id from "page_id", title from "page_title", text from "body" (--id-field, --title-field, '
        "--text-field choose others)"
    ]


def test_a_known_name_with_a_chosen_role_has_no_other(tmp_path: Path) -> None:
    path = write(tmp_path, ".csv", {"id": "1", "title": "the text", "text": "the title", "note": "n"})
    assert list(read_corpus(path, fields=FieldNames(title="text", text=("title",)))) == [
        Document("1", "the title", "the text", {"note": "n"})
    ]
    assert list(read_corpus(path, fields=FieldNames(text=("title",)))) == [
        Document("1", "", "the text", {"text": "the title", "note": "n"})
    ]


def test_chosen_names_make_the_first_line_a_header(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("nr1,words\n5,one\n")
    assert list(read_corpus(path, fields=FieldNames("nr1", text=("words",)))) == [Document("5", "", "one")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"id": "x", "title": "X "}, 'the field "x" has two roles'),
        ({"text": ("a", "b", "A")}, 'the field "a" has two roles'),
        ({"id": " "}, "the name of a field is empty"),
        ({"metadata": ("",)}, "the name of a field is empty"),
    ],
)
def test_choices_that_cannot_be(names: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        FieldNames(**names)


def test_texts_have_no_fields(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    for corpus in (tmp_path, tmp_path / "a.txt", "python-docs:"):
        with pytest.raises(SettingsError, match=r"texts have no fields.*\(nr\)"):
            read_corpus(corpus, fields=FieldNames(id="nr"))


@KINDS
def test_two_columns_that_may_be_the_chosen_one(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, kind, {"Nr": "1", "NR": "2", "text": "t"})
    with pytest.raises(CorpusError, match='the names "Nr" and "NR" may both mean nr'):
        list(read_corpus(path, fields=FieldNames(id="nr")))
    assert next(read_corpus(path, fields=FieldNames(id="NR"))).id == "2"


@KINDS
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (FieldNames(text=("Title", "Body")), Document("1", "", "T\n\nB", {"Id": "2"})),
        (FieldNames(title="Id", text=("Body",)), Document("1", "2", "B", {"Title": "T"})),
        (FieldNames(text=("Body",), metadata=("Title",)), Document("1", "", "B", {"Title": "T"})),
    ],
)
def test_a_chosen_name_that_is_known_in_another_case_has_no_other_role(
    names: FieldNames, expected: Document, kind: str, tmp_path: Path
) -> None:
    path = write(tmp_path, kind, {"_id": "1", "Id": "2", "Title": "T", "Body": "B"})
    assert list(read_corpus(path, fields=names)) == [expected]


@KINDS
def test_precedence_goes_before_case(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, kind, {"ID": "1", "page_id": "9", "Title": "T", "headline": "H", "text": "t"})
    assert list(read_corpus(path)) == [Document("1", "T", "t", {"page_id": "9", "headline": "H"})]
    path = write(tmp_path, kind, {"Page_ID": "9", "Headline": "H", "Passage": "t"})
    assert list(read_corpus(path)) == [Document("9", "H", "t")]


def test_single_names_and_lists_are_taken_as_they_are_meant() -> None:
    assert FieldNames(text="body") == FieldNames(text=("body",))  # type: ignore[arg-type]
    names = FieldNames(text=["a", "b"], metadata=["c"])  # type: ignore[arg-type]
    assert names == FieldNames(text=("a", "b"), metadata=("c",))
    assert hash(names)


def test_metadata_that_is_null_in_the_first_row(tmp_path: Path) -> None:
    rows = [{"id": "1", "text": "t", "metadata": None}, {"id": "2", "text": "t", "metadata": {"year": 3, "page": 4}}]
    path = write(tmp_path, ".parquet", *rows)
    assert [one.metadata for one in read_corpus(path, fields=FieldNames(metadata=("year",)))] == [{}, {"year": 3}]


def test_new_names_beside_those_of_before() -> None:
    before = FieldNames("nr", "heading", ("words",), ("year",))
    assert FieldNames(text=("heading", "words")).over(before) == FieldNames("nr", None, ("heading", "words"), ("year",))
    assert FieldNames(metadata=()).over(before) == FieldNames("nr", "heading", ("words",), ())
    assert FieldNames().over(before) == before


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"id": "2", "page_id": "20", "text": "", "body": "D"}, Document("2", "", "D", {"page_id": "20", "text": ""})),
        ({"id": "", "page_id": "20", "text": "x"}, Document("20", "", "x")),
        ({"id": "1", "title": " ", "page_title": "T", "text": "x"}, Document("1", "T", "x", {"title": " "})),
        ({"id": "1", "text": "", "body": None}, Document("1", "", "", {"body": None})),
        ({"id": 1, "title": 2020, "text": 2.5}, Document("1", "2020", "2.5")),
    ],
    ids=["text", "id", "title", "no text has a value", "numbers"],
)
def test_the_first_known_name_that_has_a_value(row: dict[str, Any], expected: Document, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(row))
    assert list(read_corpus(path)) == [expected]
