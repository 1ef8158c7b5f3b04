"""Readers of corpora, on small files of every format, and on real data if it is there."""

import gzip
import io
import json
import lzma
import os
import tracemalloc
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from llm2comp.corpus.documents import Document, Markup
from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.judgements import read_qrels, read_queries
from llm2comp.corpus.read import open_text, read_corpus, read_json_lines
from llm2comp.corpus.triples import read_triples
from llm2comp.errors import CorpusError, SettingsError
from tests.paths import DATA

COMPRESS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}
TWO_LINES = '{"_id": "a", "title": "Tea", "text": "Leaves in water."}\n{"_id": "b", "title": "", "text": "Кофе ☕"}\n'
TWO_DOCUMENTS = [Document("a", "Tea", "Leaves in water."), Document("b", "", "Кофе ☕")]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(source: str | Path, **options: Any) -> list[Document]:
    return list(read_corpus(source, **options))


def test_beir_folder(tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl", TWO_LINES)
    write(tmp_path / "queries.jsonl", '{"_id": "q", "text": "not a document"}\n')
    assert read(tmp_path) == TWO_DOCUMENTS
    assert read(str(tmp_path)) == TWO_DOCUMENTS


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", ["corpus.jsonl", "deep.name.json"])
def test_compressed_json_lines(tmp_path: Path, suffix: str, name: str) -> None:
    path = write(tmp_path / (name + suffix), COMPRESS[suffix](TWO_LINES.encode()))
    assert read(path) == TWO_DOCUMENTS


def test_compressed_corpus_in_a_beir_folder(tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl.xz", lzma.compress(TWO_LINES.encode()))
    assert read(tmp_path) == TWO_DOCUMENTS


@pytest.mark.parametrize("suffix", COMPRESS)
def test_archives_of_several_parts(tmp_path: Path, suffix: str) -> None:
    parts = [COMPRESS[suffix](line.encode()) for line in TWO_LINES.splitlines(keepends=True)]
    assert read(write(tmp_path / f"corpus.jsonl{suffix}", b"".join(parts))) == TWO_DOCUMENTS


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"id": "7", "contents": "Pyserini"}', Document("7", "", "Pyserini")),
        ('{"docid": 7, "document_text": "Tevatron"}', Document("7", "", "Tevatron")),
        ('{"docid": "7", "title": null, "text": "Tevatron"}', Document("7", "", "Tevatron")),
        ('{"id": 1.5, "body": "", "title": "T"}', Document("1.5", "T", "")),
        ('{"_id": 1, "content": "plain", "year": 1999}', Document("1", "", "plain", {"year": 1999})),
        (
            '{"_id": "x", "text": "t", "metadata": {"url": "u"}, "tags": [1, null]}',
            Document("x", "", "t", {"url": "u", "tags": [1, None]}),
        ),
        (
            '{"_id": "x", "id": "other", "text": "t", "content": "c"}',
            Document("x", "", "t", {"id": "other", "content": "c"}),
        ),
        (
            '{"_id": "x", "text": null, "contents": "c", "score": NaN}',
            Document("x", "", "c", {"text": None, "score": None}),
        ),
        (r'{"_id": "\u0000", "text": "a\u0000\u001b[0m\ud83d\ude00"}', Document("\0", "", "a\0\x1b[0m😀")),
    ],
)
def test_field_names(tmp_path: Path, line: str, expected: Document) -> None:
    assert read(write(tmp_path / "c.jsonl", line)) == [expected]


def test_positions_as_ids_survive_compression(tmp_path: Path) -> None:
    text = '{"text": "one"}\n\n{"text": "three"}\n'
    plain = read(write(tmp_path / "notes.jsonl", text), ids_are_positions=True)
    assert [document.id for document in plain] == ["notes.jsonl/notes.jsonl:1", "notes.jsonl/notes.jsonl:3"]
    packed = write(tmp_path / "sub" / "notes.jsonl.gz", gzip.compress(text.encode()))
    assert read(packed, ids_are_positions=True) == plain
    named = read(packed, name="mine", ids_are_positions=True)
    assert [document.id for document in named] == ["mine/notes.jsonl:1", "mine/notes.jsonl:3"]


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    assert read(write(tmp_path / "c.jsonl", "\ufeff" + TWO_LINES.replace("\n", "\r\n"))) == TWO_DOCUMENTS
    assert read(write(tmp_path / "c.csv", "\ufeffid,text\r\n1,one\r\n")) == [Document("1", "", "one")]


def test_unusual_line_breaks_stay_in_their_text(tmp_path: Path) -> None:
    text = "a\u2028b\x85c\x0bd"
    assert read(write(tmp_path / "c.jsonl", json.dumps({"id": "1", "text": text}, ensure_ascii=False)))[0].text == text


def test_csv_with_quoting_and_large_fields(tmp_path: Path) -> None:
    large = "x" * 1_000_000
    path = write(tmp_path / "c.csv", f'id,title,text,year\n1,"a, ""b""","line 1\nline 2",1999\n\n2,,{large},\n')
    assert read(path, csv_strings=True) == [
        Document("1", 'a, "b"', "line 1\nline 2", {"year": "1999"}),
        Document("2", "", large, {"year": ""}),
    ]
    rows = read(write(tmp_path / "d.csv", 'text\n"a\nb"\nc\n'), ids_are_positions=True)
    assert [document.id for document in rows] == ["d.csv/d.csv:2", "d.csv/d.csv:4"]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    columns = {
        "docid": [1, 2],
        "text": ["one", "two"],
        "day": [date(2020, 1, 2), None],
        "raw": [b"\xff", b""],
        "weight": [0.5, float("nan")],
    }
    parquet.write_table(pyarrow.table(columns), path)
    assert read(path) == [
        Document("1", "", "one", {"day": "2020-01-02", "weight": 0.5}),
        Document("2", "", "two", {"day": None, "weight": None}),
    ]


@pytest.mark.parametrize("rows_per_group", [500, 20_000])
def test_parquet_is_not_held_in_memory(tmp_path: Path, rows_per_group: int) -> None:
    path = tmp_path / "c.parquet"
    parquet.write_table(
        pyarrow.table({"text": [os.urandom(1000).hex() for _ in range(20_000)]}), path, row_group_size=rows_per_group
    )  # 40 MB of text
    before = pyarrow.total_allocated_bytes()
    memory = [pyarrow.total_allocated_bytes() - before for _ in read_corpus(path)]
    assert len(memory) == 20_000
    assert max(memory) < 15_000_000


def test_text_folder(tmp_path: Path) -> None:
    write(tmp_path / "b.md", "# Bee")
    write(tmp_path / "a" / "z.TXT", "\ufeffзет\r\nzet")
    write(tmp_path / "a" / "gz.txt.gz", gzip.compress(b"packed"))
    write(tmp_path / "a" / "code.py", "pass")
    write(tmp_path / ".git" / "c.txt", "hidden")
    write(tmp_path / ".hidden.txt", "hidden")
    bare = FieldNames(metadata=())
    assert read(tmp_path, name="notes", fields=bare) == [
        Document("notes/b.md", "Bee", "# Bee", markup=Markup.MARKDOWN),
        Document("notes/a/gz.txt.gz", "", "packed"),
        Document("notes/a/z.TXT", "", "зет\nzet"),
    ]
    assert read(tmp_path)[0].id == f"{tmp_path.name}/b.md"
    assert read(tmp_path / "b.md", fields=bare) == [Document("b.md", "Bee", "# Bee", markup=Markup.MARKDOWN)]


def test_hub_reads_what_datasets_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    write(folder / "train.jsonl", TWO_LINES)
    assert read(f"hub:{folder}") == TWO_DOCUMENTS
    write(folder / "test.jsonl", '{"_id": "c", "title": "", "text": "t"}\n')
    assert read(f"hub:{folder}::test") == [Document("c", "", "t")]
    with pytest.raises(CorpusError, match="has the splits train, test; name one: hub:.*::train"):
        read(f"hub:{folder}")
    with pytest.raises(CorpusError, match="cannot be loaded as a data set: .*validation"):
        read(f"hub:{folder}::validation")


@pytest.mark.parametrize("source", ["hub:", "hub:a:b:c:d"])
def test_hub_name_is_checked_first(source: str) -> None:
    with pytest.raises(CorpusError, match=r"expected hub:NAME\[:CONFIG\]\[:SPLIT\]"):
        read(source)


MALFORMED = [
    (
        "c.jsonl",
        b'{"id": 1, "text": "cut',
        "1: not JSON (Unterminated string starting at at column 19), expected one whole object",
    ),
    (
        "c.jsonl",
        b'{"id": 1, "text":\r\n{"id": 2, "text": "b"}\n',
        "1: not JSON (Expecting value at column 18), expected one whole object {...} per line; `jq -c .` writes",
    ),
    ("c.csv", b"id,text\n1\n", "2: 1 field, expected 2 as in the header: id, text"),
    ("c.jsonl", b'[{"id": 1, "text": "a"}]', "1: a JSON list, expected one object"),
    ("c.jsonl", b'\n{"id": 1, "text": "\xff"}', "2: not UTF-8 (byte 0xff at position 20); convert the file with iconv"),
    ("c.jsonl", rb'{"id": 1, "text": "\ud800"}', "1: half a surrogate pair (\\ud800) in a string"),
    ("c.jsonl", rb'{"id": 1, "text": "t", "more": {"\udfff": 1}}', "1: half a surrogate pair (\\udfff) in a string"),
    ("c.jsonl", b"[" * 200_000, "1: JSON nested too deeply"),
    ("c.jsonl", b'{"id": 1, "text": %s}' % (b"9" * 5000), "1: Exceeds the limit"),
    ("c.jsonl", b'{"id": 1, "text": [5]}', '1: the text in "text" is [5], expected a string or a number'),
    ("c.jsonl", b'{"id": 1, "text": null}', '1: the text in "text" is null, expected a string'),
    (
        "c.jsonl",
        b'{"id": 1, "words": "t"}',
        "1: no text; expected one of the fields text, contents, content, body, document_text, page_text, page_content, "
        "passage, full_text, found id, words; --text-field NAME (fields) chooses another",
    ),
    (
        "c.jsonl",
        b'{"id": 1, "text": "t", "title": ["t"]}',
        "1: the title in \"title\" is ['t'], expected",
    ),
    ("c.jsonl", b'{"id": true, "text": "t"}', '1: the id in "id" is a truth value'),
    ("c.jsonl", b'{"id": ["a"], "text": "t"}', "1: the id in \"id\" is ['a'], expected a string or a number"),
    ("c.jsonl", b'{"id": Infinity, "text": "t"}', '1: the id in "id" is inf'),
    ("c.jsonl", b'{"id": 1, "text": NaN}', '1: the text in "text" is null, expected a string'),
    ("c.jsonl", b'{"_id": "", "text": "t"}', "1: the id in \"_id\" is ''"),
    ("c.jsonl", b'{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}', "2: duplicate id '1'; ids must be unique"),
    ("c.csv", b"id,text\n1,a,b\n", "2: 3 fields, expected 2 as in the header: id, text"),
    (
        "c.csv",
        b'id,text\n1,"a\nb"c\n',
        "2: not a row of comma-separated values (',' expected after '\"', read up to line 3)",
    ),
    (
        "c.csv",
        b'id,text\n1,"a\nb\n',
        "2: a quote opens a field here and no quote closes it",
    ),
    ("c.tsv", b"id\ttext\n1\t\xc3\xa9 \xe9\n", "2: not UTF-8"),
    ("c.tsv", b"id\tlabel\n1\tx\n", "2: no text; expected one of the fields text"),
    ("c.txt", b"one\ntwo \xc3\xa9 \xe9\n", "2: not UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "message"), MALFORMED)
def test_malformed_row_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(CorpusError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:{message}")
    assert "\n" not in str(caught.value)


def test_skipping_reports_each_row_and_goes_on(tmp_path: Path) -> None:
    lines = [
        '{"id": 1, "text": "a"}',
        "{",
        '{"id": 1, "text": "second"}',
        '{"id": 2, "text": [2]}',
        '{"id": 3, "text": "c"}',
    ]
    path = write(tmp_path / "c.jsonl", "\n".join(lines))
    skipped: list[str] = []
    assert read(path, on_error="skip", on_skip=skipped.append) == [Document("1", "", "a"), Document("3", "", "c")]
    assert [message.split(": ")[0] for message in skipped] == [f"{path}:2", f"{path}:3", f"{path}:4"]


def test_skipping_in_a_csv_goes_on_after_the_broken_row(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", b'id,text\n1,"a"b\n2,\xc3\xa9 \xff\n3,c,d\n4,good\n')
    skipped: list[str] = []
    assert read(path, on_error="skip", on_skip=skipped.append) == [Document("4", "", "good")]
    assert [message.split(": ")[0] for message in skipped] == [f"{path}:2", f"{path}:3", f"{path}:4"]


def test_skipped_rows_go_to_the_log_when_nobody_asks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "c.jsonl", "{\n" + TWO_LINES)
    assert read(path, on_error="skip") == TWO_DOCUMENTS
    assert f"{path}:1: not JSON" in caplog.text


def test_unknown_error_mode() -> None:
    with pytest.raises(SettingsError, match="on_error is 'ignore'"):
        read_corpus("python-docs:", on_error="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", ["c.jsonl", "c.csv", "c.txt"])
def test_truncated_archive(tmp_path: Path, suffix: str, name: str) -> None:
    content = "id,text\n" + "".join(f"{number},{os.urandom(8).hex()}\n" for number in range(5000))
    if name == "c.jsonl":
        content = "".join(json.dumps({"id": number, "text": os.urandom(8).hex()}) + "\n" for number in range(5000))
    path = write(tmp_path / (name + suffix), COMPRESS[suffix](content.encode())[:-20])
    with pytest.raises(CorpusError, match=rf"^{path}: truncated or damaged \{suffix} archive"):
        read(path)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_file_that_is_no_archive(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"c.jsonl{suffix}", TWO_LINES)
    with pytest.raises(CorpusError, match=rf"truncated or damaged \{suffix} archive"):
        read(path)


def test_damaged_parquet(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="not a readable parquet file"):
        read(write(tmp_path / "c.parquet", "no parquet"))


@pytest.mark.parametrize("source", ["absent", "python-docs", "python-docs:everything"])
def test_missing_source_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match=f"^{source}: no such file or folder; expected a BEIR folder"):
        read_corpus(source)


@pytest.mark.parametrize("name", ["absent.jsonl", "absent.csv.gz", "absent.pdf"])
def test_a_missing_file_of_a_known_kind(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorpusError, match=f"^{tmp_path / name}: no such file or folder$"):
        read_corpus(tmp_path / name)


@pytest.mark.parametrize("name", ["corpus.png", "corpus", "corpus.parquet.gz", "corpus.zip"])
def test_unknown_kind_is_refused_at_once(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "x")
    with pytest.raises(CorpusError, match=f"^{path}: unknown kind of file; expected a BEIR folder"):
        read_corpus(path)


def test_empty_source_is_not_the_working_folder() -> None:
    with pytest.raises(CorpusError, match="empty string"):
        read_corpus("")


@pytest.mark.parametrize(
    ("name", "content"),
    [("c.jsonl", b""), ("c.jsonl", b"\n \n"), ("c.csv", b"id,text\n"), ("c.csv", b""), ("c.jsonl.gz", b"")],
)
def test_empty_corpus(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(CorpusError, match="an empty corpus: no document in it"):
        read(write(tmp_path / name, content))


def test_corpus_of_skipped_rows_only_is_empty(tmp_path: Path) -> None:
    for rows in ("{\n", '{"id": true, "text": "t"}\n', '{"id": 1, "id": 2, "text": "t"}\n{"title": "x"}\n'):
        left_out = (
            rf"an empty corpus: no document in it; {rows.count('{')} rows? w(as|ere) left out, the first as .*:1: "
        )
        with pytest.raises(CorpusError, match=left_out):
            read(write(tmp_path / "c.jsonl", rows), on_error="skip", on_skip=lambda message: None)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read every file")
def test_unreadable_file(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", TWO_LINES)
    path.chmod(0)
    with pytest.raises(CorpusError, match="cannot be read: Permission denied"):
        read(path)


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"c\.jsonl: cannot be read: Is a directory"):
        next(read_json_lines(write(tmp_path / "c.jsonl" / "x.txt", "x").parent))


def test_columns_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=":1: a column name occurs twice in the header: id, text, text"):
        read(write(tmp_path / "c.csv", "id,text,text\n1,a,b\n"))


def test_reading_holds_one_document_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(
            json.dumps({"id": number, "text": "word " * 2000}) + "\n" for number in range(3000)
        )  # 30 MB of text
    tracemalloc.start()
    total = sum(len(document.text) for document in read_corpus(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 30_000_000
    assert peak < 2_000_000


def test_many_ids_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "c.tsv"
    path.write_text("id\ttext\n" + "".join(f"{number % 5000}\tt\n" for number in range(6000)))
    skipped: list[str] = []
    assert [document.id for document in read_corpus(path, on_error="skip", on_skip=skipped.append)] == [
        str(number) for number in range(5000)
    ]
    assert len(skipped) == 1000


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ('{"id": 1, "text": "t", "text": "u"}', "text"),
        ('{"id": 1, "text": "t", "n": 1, "n": 1}', "n"),
        ('{"id": 1, "text": "t", "metadata": {"year": 1, "b": 2, "year": 2}}', "year"),
        ('{"id": 1, "text": "t", "a": [1, [{"b": {"c d": 1, "c d": null}}]]}', "c d"),
        ('{"id": 1, "text": "t", "\\u00e9": 1, "é": 2}', "é"),
    ],
)
def test_a_key_twice_in_one_object_is_refused_or_skipped(tmp_path: Path, row: str, key: str) -> None:
    path = write(tmp_path / "c.jsonl", TWO_LINES + row + "\n")
    with pytest.raises(CorpusError, match=f"^{path}:3: the key '{key}' stands twice in one object[^\n]*$"):
        read(path)
    skipped: list[str] = []
    assert read(path, on_error="skip", on_skip=skipped.append) == TWO_DOCUMENTS
    assert len(skipped) == 1
    other = '{"id": 1, "text": "t", "a": {"text": "t", "id": 1}, "b": [{"id": 1}, {"id": 1}], "Id": 3}'
    assert len(read(write(tmp_path / "d.jsonl", other))) == 1


def test_a_key_twice_is_refused_in_queries_judgements_and_training_rows(tmp_path: Path) -> None:
    for read_file, row in (
        (read_queries, '{"id": "q", "text": "a", "text": "b"}'),
        (read_qrels, '{"query-id": "q", "corpus-id": "d", "score": 1, "score": 0}'),
        (lambda path: list(read_triples(path)), '{"query": "q", "positive": "a", "positive": "b"}'),
    ):
        with pytest.raises(CorpusError, match=r":1: the key '\w+' stands twice in one object"):
            read_file(write(tmp_path / "f.jsonl", row))


def test_read_json_lines_numbers_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", '\n{"query": "q"}\n[]\n{"query": "r"}')
    skipped: list[str] = []
    assert list(read_json_lines(path, on_error="skip", on_skip=skipped.append)) == [
        (2, {"query": "q"}),
        (4, {"query": "r"}),
    ]
    assert len(skipped) == 1
    with pytest.raises(CorpusError, match=":3: a JSON list"):
        list(read_json_lines(path))


@pytest.mark.parametrize("suffix", ["", *COMPRESS])
def test_open_text(tmp_path: Path, suffix: str) -> None:
    content = "\ufeffодин\nдва".encode()
    path = write(tmp_path / f"t.txt{suffix}", COMPRESS[suffix](content) if suffix else content)
    with open_text(path) as file:
        assert isinstance(file, io.TextIOBase)
        assert list(file) == ["один\n", "два"]
    with open_text(path) as file:
        assert file.read(3) + file.read() == "один\nдва"


@pytest.mark.parametrize(
    "method",
    [
        list,
        lambda file: file.read(),
        lambda file: file.readlines(),
        lambda file: [file.readline() for _ in range(9999)],
    ],
)
def test_open_text_names_the_line_that_is_not_utf8(tmp_path: Path, method: Callable[[Any], object]) -> None:
    path = write(tmp_path / "t.txt", b"good line\n" * 7000 + b"\xfe\n")
    with open_text(path) as file, pytest.raises(CorpusError, match=f"^{path}:7001: not UTF-8"):
        method(file)


def test_open_text_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such file or folder"):
        open_text(tmp_path / "absent.txt")


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data is not at {DATA}; LLM2COMP_DATA names its folder")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("wiki/articles.jsonl.xz", 18_417),
        ("wiki/heldout.jsonl.gz", 2000),
        ("eval/scifact", 5183),
        ("eval/cranfield", 1398),
        ("eval/xquad", 240),
    ]
    + [
        ("eval/stackoverflow-titles/test.tsv.gz", 20_000),
        ("eval/banking77/train.tsv.gz", 10_003),
        ("eval/banking77/test.tsv.gz", 3080),
    ],
)
def test_real_corpora_have_the_documented_size(name: str, count: int) -> None:
    lengths = [len(document.text) for document in read_corpus(DATA / name)]
    assert len(lengths) == count
    assert min(lengths) > 0
