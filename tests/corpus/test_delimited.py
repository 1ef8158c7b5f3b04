"""CSV and TSV files as their writers write them: no row is lost, joined to another or read as something else."""

import csv
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llm2comp.corpus.read import read_corpus, read_queries
from llm2comp.errors import CorpusError

Quoting = Literal[0, 1, 2, 3]
QUICK = settings(max_examples=100, deadline=None, derandomize=True)
SWALLOWED = ['"I came early.', "Nobody was there.", 'I left late."']
TEXTS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from('"\t\n\r, ')), min_size=1
)
ENCLOSED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')  # as only a writer with quotes would write it


def read_texts(name: str, content: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content.encode())
        return [document.text for document in read_corpus(path)]


def written(texts: list[str], delimiter: str, quoting: Quoting, line_end: str) -> str:
    file = io.StringIO(newline="")
    rows = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
    rows.writerows([("id", "text"), *enumerate(texts)])
    return file.getvalue()


def plain(texts: list[str]) -> str:
    return "id\ttext\n" + "".join(f"{number}\t{text}\n" for number, text in enumerate(texts))


@QUICK
@given(
    TEXTS, st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]), st.sampled_from(["\n", "\r\n"])
)
def test_csv_of_pythons_writer(texts: list[str], quoting: Quoting, line_end: str) -> None:
    if line_end == "\n" and quoting == csv.QUOTE_MINIMAL:  # a carriage return is not quoted then: a line end at the end
        texts = [text.replace("\r", "") for text in texts]
    assert read_texts("c.csv", written(texts, ",", quoting, line_end)) == texts


@QUICK
@given(TEXTS, st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
def test_tsv_with_every_text_quoted(texts: list[str], quoting: Quoting) -> None:
    assert read_texts("c.tsv", written(texts, "\t", quoting, "\n")) == texts


@QUICK
@given(TEXTS)
def test_tsv_quoted_where_necessary(texts: list[str]) -> None:
    """As pandas writes it. Texts with a tab and a line break are left out: they can look like several rows."""
    texts = [re.sub(r"[\n\r]", " ", text) if "\t" in text else text for text in texts]
    assert read_texts("c.tsv", written(texts, "\t", csv.QUOTE_MINIMAL, "\r\n")) == texts


@QUICK
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\t\n\r") | st.just('"')), min_size=1))
def test_tsv_without_quoting(texts: list[str]) -> None:
    assume(not any(ENCLOSED.fullmatch(text) for text in texts))
    assert read_texts("c.tsv", plain(texts)) == texts


@QUICK
@given(TEXTS, st.booleans())
def test_json_lines(texts: list[str], ascii_only: bool) -> None:
    rows = [json.dumps({"id": number, "text": text}, ensure_ascii=ascii_only) for number, text in enumerate(texts)]
    assert read_texts("c.jsonl", "\n".join(rows)) == texts


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("texts", [SWALLOWED, ['"', '"', '"'], ['"a"', '"b', 'c"'], ['5" pipe', '"6" pipe', "b"]])
def test_a_quote_takes_no_row_with_it(texts: list[str], line_end: str) -> None:
    assert read_texts("c.tsv", plain(texts).replace("\n", line_end)) == texts


def test_a_quote_takes_no_query_with_it(tmp_path: Path) -> None:
    path = tmp_path / "queries.tsv"
    path.write_text(plain(SWALLOWED))
    assert list(read_queries(path).values()) == SWALLOWED


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_text_with_tabs_or_lines_shows_that_a_file_has_quotes(position: int) -> None:
    names = ["text", "label", "more"]
    names.insert(position, names.pop(0))
    rows = [('"tab\there"', "1", "x"), ('"two\nlines"', "2", "y"), ('"say ""no"""', "3", "z"), ("plain", "4", "w")]
    lines = ["\t".join(names)]
    for text, *others in rows:
        others.insert(position, text)
        lines.append("\t".join(others))
    for order in (lines, [lines[0], *reversed(lines[1:])]):
        texts = read_texts("c.tsv", "\n".join(order))
        assert sorted(texts) == ["plain", 'say "no"', "tab\there", "two\nlines"]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (["1\ta", '2\t"b\tc', "3\td"], 3),  # not quoted, for the quote is not closed: three columns
        (["1\ta", '2\t"b', "c", '3\td"'], 4),  # two whole rows are not part of a text
        (['1\t"a\tb"', '2\t"c" d', "3\te"], 3),  # quoted, as line 2 shows; line 3 is not
        (['1\t"a\tb"', '2\t"c', "3\te"], 3),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path: Path, rows: list[str], line: int) -> None:
    path = tmp_path / "c.tsv"
    path.write_text("\n".join(["id\ttext", *rows]))
    with pytest.raises(CorpusError, match=rf"^{path}:{line}: "):
        list(read_corpus(path))
    skipped = list[str]()
    ids = [document.id for document in read_corpus(path, on_error="skip", on_skip=skipped.append)]
    assert len(skipped) == 1
    assert {"1", "3"} <= set(ids)


def test_an_unclosed_quote_in_csv_is_named_and_takes_no_row_with_it(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text('id,text\n1,"a\nb"\n2,"c\n3,d\n4,e\n')
    with pytest.raises(CorpusError, match=rf"^{path}:4: a quote opens a field here and no quote closes it"):
        list(read_corpus(path))
    skipped = list[str]()
    documents = {document.id: document.text for document in read_corpus(path, on_error="skip", on_skip=skipped.append)}
    assert documents == {"1": "a\nb", "3": "d", "4": "e"}
    assert len(skipped) == 1


def test_the_line_of_the_open_quote_is_named_inside_a_long_row(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text('id,text,more\n1,"a\nb\nsay ""c""","d\ne\n')
    with pytest.raises(CorpusError, match=rf"^{path}:4: a quote opens"):
        list(read_corpus(path))


def test_rows_of_other_lengths_are_skipped_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("id,text\n1,a,b\n2\n3,c\n")
    skipped = list[str]()
    assert [document.id for document in read_corpus(path, on_error="skip", on_skip=skipped.append)] == ["3"]
    assert [message.split(": ")[0] for message in skipped] == [f"{path}:2", f"{path}:3"]


def test_a_carriage_return_inside_a_line_stays() -> None:
    assert read_texts("c.csv", "id,text\n1,a\rb\n") == ["a\rb"]
    assert read_texts("c.tsv", "id\ttext\n1\ta\rb\n") == ["a\rb"]


@pytest.mark.parametrize("name", ["c.csv", "c.tsv"])
def test_carriage_returns_alone_end_lines(name: str) -> None:
    delimiter = "," if name.endswith("csv") else "\t"
    content = "id,text\r1,one\r\r2,two\r".replace(",", delimiter)
    assert read_texts(name, content) == read_texts(name, "\ufeff" + content) == ["one", "two"]
    many = "id,text\r" + "".join(f"{number},{'x' * 100}\r" for number in range(20_000))
    assert len(read_texts(name, many.replace(",", delimiter))) == 20_000
