"""CSV and TSV files as their writers write them: no row is lost, joined to another or read as something else."""

import csv
import io
import json
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llm2comp.corpus.read import read_corpus, read_qrels, read_queries
from llm2comp.errors import CorpusError

Quoting = Literal[0, 1, 2, 3]
QUICK = settings(max_examples=100, deadline=None, derandomize=True)
SWALLOWED = ['"I came early.', "Nobody was there.", 'I left late."']
TEXTS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from('"\t\n\r, ')), min_size=1
)
ENCLOSED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')  # as only a writer with quotes would write it


def read_texts(name: str, content: str, *, quotes: bool | None = None) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content.encode())
        return [document.text for document in read_corpus(path, quotes=quotes)]


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
    """A text of lines that could be rows is refused, unless the caller says that the file has quoting."""
    content = written(texts, "\t", quoting, "\n")
    assert read_texts("c.tsv", content, quotes=True) == texts
    if any(re.search(r"\n[^\n]*\t", text) for text in texts):
        with suppress(CorpusError):
            assert read_texts("c.tsv", content) == texts
    else:
        assert read_texts("c.tsv", content) == texts


@QUICK
@given(TEXTS)
def test_tsv_quoted_where_necessary_when_the_caller_says_so(texts: list[str]) -> None:
    assert read_texts("c.tsv", written(texts, "\t", csv.QUOTE_MINIMAL, "\r\n"), quotes=True) == texts


@QUICK
@given(
    st.lists(st.lists(st.text('"ab ', max_size=5), min_size=2, max_size=2), min_size=1),
    st.sampled_from(["id\ttext\n", '"id"\t"text"\n', 'id\ttext\n0\t"say ""no"""\n', ""]),
)
def test_lines_that_fit_the_columns_are_rows_or_an_error(rows: list[list[str]], start: str) -> None:
    """Whatever quotes they have: in a file that shows quoting, and in one that does not."""
    lines = "".join(f"{number}{first}\t{text}.\n" for number, (first, text) in enumerate(rows, start=1))
    with suppress(CorpusError):
        assert len(read_texts("c.tsv", start + lines)) == len(rows) + start.count("say")
    assert len(read_texts("c.tsv", start.replace('"', "") + lines, quotes=False)) == len(rows) + start.count("say")


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


def read_ids(path: Path, content: str, **options: bool) -> list[str]:
    path.write_text(content)
    return [document.id for document in read_corpus(path, **options)]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('id\ttext\n"1"\t"a"\n"2"\t"b"\n', 2),
        ('id\ttext\n1\ta\n"2"\t"b"\n3\t5" pipe\n', 3),
        ('id\ttext\n1\t"a"\n2\t"b"\n', None),
        ('id\ttext\n"1"\t"a\tb"\n', None),  # the tab shows that it has quotes
        ('"id"\t"text"\n"1"\t"a"\n', None),  # the first row shows it
        ('text\n"a"\n', None),
    ],
)
def test_rows_in_quotes_under_a_header_without_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str, line: int | None
) -> None:
    path = tmp_path / "c.tsv"
    path.write_text(content)
    list(read_corpus(path))
    notes = [message for message in caplog.messages if "every field is in quotes" in message]
    assert len(notes) == (line is not None)
    assert all(re.match(rf"{path}:{line}: .*; --quotes \(quotes=True\)", note) for note in notes)
    with suppress(CorpusError):
        list(read_corpus(path, quotes=False))
    assert len([message for message in caplog.messages if "every field is in quotes" in message]) == len(notes)


@pytest.mark.parametrize(
    ("content", "line", "quoted", "plain"),
    [
        ('"a"\t"b"\n2\t"open\n3\tx\n4\tclose"', 2, ["a", "2"], ['"a"', "2", "3", "4"]),
        ('id\ttext\n1\t"he said ""hi"""\n2\t"x\n3\ty\n4\tz"', 3, ["1", "2"], ["1", "2", "3", "4"]),
        ('"a"\t"b"\n2\t"open\n\n4\tclose"', 2, ["a", "2"], ['"a"', "2", "4"]),
        ('"a"\t"b"\n2\t"open\tmore\n3\tx\n4\tclose"\t', 2, None, None),
        ('"a"\t"b"\n2\t"open\tmore\n3\tclose"', 2, ["a", "2"], None),
        ('"Quote"\t"Hello\n2\tmid\n3\tend"\t"x"', 1, ["Quote"], None),
        ('1\t"I came\n2\tthere"\t', 1, ["1"], None),
    ],
)
def test_lines_that_are_rows_with_and_without_quotes_are_refused(
    tmp_path: Path, content: str, line: int, quoted: list[str] | None, plain: list[str] | None
) -> None:
    path = tmp_path / "c.tsv"
    with pytest.raises(CorpusError, match=rf"^{path}:{line}: lines {line} to .* --quotes .* --no-quotes "):
        read_ids(path, content)
    with pytest.raises(CorpusError, match=rf"^{path}:{line}: lines {line} to "):
        read_queries(path)
    for quotes, ids in ((True, quoted), (False, plain)):
        if ids is not None:
            assert read_ids(path, content, quotes=quotes) == ids
        else:
            with pytest.raises(CorpusError, match=rf"^{path}:\d+: \d fields, expected 2"):
                read_ids(path, content, quotes=quotes)


def test_a_row_that_only_quotes_would_make_fit_is_refused_with_the_option(tmp_path: Path) -> None:
    path, content = tmp_path / "c.tsv", 'id\ttext\tmore\n1\t"a\n2\tb\tb\n3\tc\tc\n4\td"\tx'
    with pytest.raises(CorpusError, match=rf"^{path}:2: 2 fields, expected 3 as in the header: .*; --quotes "):
        read_ids(path, content)
    assert read_ids(path, content, quotes=True) == ["1"]


@pytest.mark.parametrize(
    ("name", "content", "count", "note"),
    [
        ("c.tsv", 'id\ttext\n1\tx\n2\t"open\n3\tx\n4\tclose"\n', 4, "3: lines 3 to 5 are read as rows, .*; --quotes "),
        ("c.tsv", 'text\n"a\nb"\n', 2, "2: lines 2 to 3 are read as rows, .*; --quotes "),
        ("c.csv", 'id,text\n1,"open\n2,x\n3,close"\n4,y\n', 2, "2: lines 2 to 4 are read as one row .*; --no-quotes "),
        ("c.csv", 'id,text\na,"open\nb,x\nc,close"\nd,y\n', 2, "2: lines 2 to 4 are read as one row .*; --no-quotes "),
        ("c.csv", 'id,text\na,"One\nday, here\nis so, there"\nd,y\n', 2, ""),
        ("c.tsv", 'id\ttext\n1\t"a"\n2\t5" pipe\n', 2, ""),
        ("c.csv", 'id,text\n1,"one\n\ntwo, three"\n2,"a, b"\n', 2, ""),
    ],
)
def test_one_line_names_lines_that_could_be_read_otherwise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, content: str, count: int, note: str
) -> None:
    path = tmp_path / name
    for quotes in (None, None, True, False):
        path.write_text(content)
        with suppress(CorpusError):
            documents = list(read_corpus(path, quotes=quotes))
            assert quotes is not None or len(documents) == count
    if note:
        [message] = [message for message in caplog.messages if ": lines " in message]
        assert re.match(f"{path}:{note}", message)
    else:
        assert ": lines " not in caplog.text


@pytest.mark.parametrize(
    ("content", "line", "quoted", "plain"),
    [
        ('id\ttext\nd0\tplain\nd1\t"5"""\n', 3, ["plain", '5"'], ["plain", '"5"""']),
        ('id\ttext\nd0\t""""\nd1\tplain\n', 2, ['"', "plain"], ['""""', "plain"]),
        ('"id"\t"text"\nd0\t"5"""\n', None, ['5"'], None),  # the first row shows it
        ('id\ttext\nd0\t"a\tb ""c"""\n', None, ['a\tb "c"'], None),  # the tab shows it
        ('id\ttext\nd0\t"5"""\nd1\t5" pipe\n', None, None, ['"5"""', '5" pipe']),  # nobody with quotes writes line 3
    ],
)
def test_doubled_quotes_as_the_only_sign_of_quoting_are_named(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    content: str,
    line: int | None,
    quoted: list[str] | None,
    plain: list[str] | None,
) -> None:
    path = tmp_path / "c.tsv"
    path.write_text(content)
    for _ in range(2):
        assert [document.text for document in read_corpus(path)] == (quoted or plain)
    notes = [message for message in caplog.messages if "quotes around fields" in message]
    assert len(notes) == (line is not None)
    assert all(re.match(rf"{path}:{line}: .*; --no-quotes \(quotes=False\)", note) for note in notes)
    if plain:
        assert read_texts("c.tsv", content, quotes=False) == plain


def test_a_row_of_several_lines_that_fit_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "c.tsv"
    content = 'id\ttext\nd0\t"\n1\t""x"""\nd1\tplain text\nd2\tplain text\n'  # of Python's writer
    assert read_ids(path, content) == ["d0", "1", "d1", "d2"]
    [note] = caplog.messages
    assert note.startswith(f"{path}:2: lines 2 to 3 are read as rows, with quotes as part of the texts; --quotes ")
    assert read_ids(path, content, quotes=True) == ["d0", "d1", "d2"]


def test_lines_of_a_refused_row_are_read_when_rows_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "c.tsv"
    path.write_text('"id"\t"text"\n2\t"open\n3\tx\n4\tclose"\n5\t"y"')
    skipped = list[str]()
    documents = read_corpus(path, on_error="skip", on_skip=skipped.append)
    assert [document.id for document in documents] == ["3", "4", "5"]
    assert [message.split(": ")[0] for message in skipped] == [f"{path}:2"]


def test_paragraphs_in_quotes_are_read_without_an_option(tmp_path: Path) -> None:
    path = tmp_path / "c.tsv"
    assert read_ids(path, 'id\ttext\n1\t"one\n\ntwo, ""2"""\n2\t"three\nfour"\n3\tfive\n') == ["1", "2", "3"]
    assert read_ids(path, 'text\tid\n"one\n\ntwo"\t1\n"three\nfour"\t2\nfive\t3\n') == ["1", "2", "3"]


def test_qrels_take_no_judgement_into_another(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    rows = ['"query-id"\t"corpus-id"\t"score"', '"q1"\t"d1"\t"1"', 'q1\t"d2\t1', 'q2\td"3"\t1', 'q3\td4"\t1']
    path.write_text("\n".join(rows[:2]))
    assert read_qrels(path) == {"q1": {"d1": 1}}
    path.write_text("\n".join(rows))
    with pytest.raises(CorpusError, match=rf"^{path}:3: "):
        read_qrels(path)
    path.write_text("\n".join(rows).replace('"query-id"\t"corpus-id"\t"score"', "query-id\tcorpus-id\tscore"))
    with pytest.raises(CorpusError, match=rf"^{path}:2: the score is"):
        read_qrels(path, quotes=False)


def test_csv_without_quoting(tmp_path: Path) -> None:
    assert read_texts("c.csv", 'id,text\n1,"a\n2,b"\n', quotes=False) == ['"a', 'b"']


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
