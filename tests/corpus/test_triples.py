"""Training files of every format become data sets for the trainer, and no row is lost."""

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from llm2comp.corpus.triples import TripleSet, read_rows, read_triples
from llm2comp.errors import CorpusError, SettingsError


def write(path: Path, *rows: object) -> Path:
    text = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def rows_of(triple_set: TripleSet) -> list[tuple[str, ...]]:
    data = triple_set.load()
    return [tuple(row[column] for column in data.column_names) for row in data]


def test_one_positive_one_negative(tmp_path: Path) -> None:
    path = write(tmp_path / "cats.jsonl.gz", {"query": "q", "positive": "p", "negative": "n"})
    (triples,) = read_triples(path)
    assert (triples.name, triples.negatives, triples.pairs, triples.instruction) == ("cats-1neg", 1, 1, None)
    assert triples.load().column_names == ["anchor", "positive", "negative_1"]
    assert rows_of(triples) == [("q", "p", "n")]


def test_rows_with_and_without_negatives_all_arrive(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mixed.jsonl",
        {"query": "a", "positive": "1", "negative": None},
        {"query": "b", "positive": ["2", "3"], "negative": ["x", "y", "z"]},
        {"query": "c", "positive": "4"},
        {"query": "d", "positive": "5", "negative": "w"},
        {"query": "e", "positive": "6", "negative": []},
    )
    sets = {triples.name: triples for triples in read_triples(path, max_negatives=2)}
    assert rows_of(sets["mixed"]) == [("a", "1"), ("c", "4"), ("e", "6")]
    assert rows_of(sets["mixed-1neg"]) == [("d", "5", "w")]
    assert rows_of(sets["mixed-2neg"]) == [("b", "2", "x", "y"), ("b", "3", "x", "y")]
    assert {name: triples.pairs for name, triples in sets.items()} == {"mixed": 3, "mixed-1neg": 1, "mixed-2neg": 2}


def test_no_negatives_wanted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", {"query": "q", "positive": "p", "negative": "n"}, {"query": "r", "positive": "s"}
    )
    (triples,) = read_triples(path, max_negatives=0)
    assert rows_of(triples) == [("q", "p"), ("r", "s")]
    with pytest.raises(SettingsError, match="max_negatives is -1"):
        read_triples(path, max_negatives=-1)


def test_tevatron_joins_title_and_text(tmp_path: Path) -> None:
    row = {
        "query_id": "1",
        "query": "capital of Peru",
        "positive_passages": [
            {"docid": "7", "title": "Lima", "text": "Lima is the capital."},
            {"docid": "8", "title": "", "text": "It is Lima."},
        ],
        "negative_passages": [{"docid": "9", "title": "Quito", "text": "Not Peru."}],
    }
    (triples,) = read_triples(write(tmp_path / "t.jsonl", row))
    assert rows_of(triples) == [
        ("capital of Peru", "Lima\nLima is the capital.", "Quito\nNot Peru."),
        ("capital of Peru", "It is Lima.", "Quito\nNot Peru."),
    ]


def test_other_names_for_the_fields(tmp_path: Path) -> None:
    path = write(
        tmp_path / "e.jsonl",
        {"query": "q", "pos": ["p"], "neg": ["n"]},
        {"anchor": "a", "positive": "b", "negative": None},
    )
    assert [triple for _, triple in read_rows(path)] == [("q", ("p",), ("n",)), ("a", ("b",), ())]


def test_many_rows_keep_their_order(tmp_path: Path) -> None:
    count = 10_000  # more than two of the batches the table is put together from
    path = write(
        tmp_path / "many.jsonl", *({"query": f"q{number}", "positive": f"p{number}"} for number in range(count))
    )
    (triples,) = read_triples(path)
    assert rows_of(triples) == [(f"q{number}", f"p{number}") for number in range(count)]


def test_folder_with_instructions(tmp_path: Path) -> None:
    write(tmp_path / "nq.jsonl.gz", {"query": "q", "positive": "p"})
    write(tmp_path / "fever.jsonl", {"query": "c", "positive": "d", "negative": "e"}, {"query": "f", "positive": "g"})
    (tmp_path / "instructions.yaml").write_text('nq: "Find the answer"\n')
    (tmp_path / "README.md").write_text("about these files")
    sets = [(triples.name, triples.instruction) for triples in read_triples(tmp_path)]
    assert sets == [("fever", None), ("fever-1neg", None), ("nq", "Find the answer")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trivia: Find\n", "instruction for 'trivia', but no file of that name; files: nq"),
        ("nq: [1]\n", "expected lines"),
        ("nq: 'open\n", "instructions.yaml:"),
    ],
)
def test_bad_instructions(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "nq.jsonl", {"query": "q", "positive": "p"})
    (tmp_path / "instructions.yaml").write_text(text)
    with pytest.raises(CorpusError, match=message):
        read_triples(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"positive": "p"}, 'no query: expected a text under "query", found nothing'),
        ({"query": " ", "positive": "p"}, "no query.*an empty text"),
        ({"query": [3], "positive": "p"}, "no query.*type int"),
        ({"query": "q"}, "no positive"),
        ({"query": "q", "positive": []}, "no positive"),
        ({"query": "q", "positive": ["p", ""]}, "a positive is an empty text"),
        ({"query": "q", "positive": "p", "negative": [3]}, "a negative is a value of type int"),
        ({"query": "q", "positive_passages": [{"docid": "1"}]}, "a positive is a value of type dict"),
        ('{"query": "q", ', "JSON"),
        ("[1, 2]", "object"),
    ],
)
def test_bad_row_is_named_by_file_and_line(tmp_path: Path, row: object, message: str) -> None:
    path = write(tmp_path / "bad.jsonl", {"query": "q", "positive": "p"}, row)
    with pytest.raises(CorpusError, match=f"bad.jsonl:2: .*{message}"):
        read_triples(path)


def test_bad_rows_can_be_skipped_and_are_reported_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "bad.jsonl",
        {"query": "q", "positive": "p"},
        "{",
        {"query": "", "positive": "p"},
        {"query": "r", "positive": "s"},
    )
    messages: list[str] = []
    (triples,) = read_triples(path, on_error="skip", on_skip=messages.append)
    assert rows_of(triples) == [("q", "p"), ("r", "s")]
    assert [message.split(": ")[0] for message in messages] == [f"{path}:2", f"{path}:3"]


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no training file in it"):
        read_triples(tmp_path)
    with pytest.raises(CorpusError, match=r"missing\.jsonl"):
        read_triples(tmp_path / "missing.jsonl")
    with pytest.raises(CorpusError, match=r"empty\.jsonl: no pairs"):
        read_triples(write(tmp_path / "empty.jsonl"))


def test_two_files_of_one_name(tmp_path: Path) -> None:
    for name in ("nq.jsonl", "nq.jsonl.gz"):
        write(tmp_path / name, {"query": "q", "positive": "p"})
    with pytest.raises(CorpusError, match="two files are named nq"):
        read_triples(tmp_path)


TABLE = [("a, b", "1\n2", "x"), ("c", "3", ""), ("d", "4", "y")]


def write_table(path: Path) -> Path:
    """TABLE under the names of sentence-transformers, in the format of the suffix; in parquet, empty texts are null."""
    if path.suffix == ".parquet":
        columns = zip(*TABLE, strict=True)
        names = ("anchor", "positive", "negative")
        parquet.write_table(
            pa.table({name: [text or None for text in column] for name, column in zip(names, columns, strict=True)}),
            path,
        )
        return path
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerows([("anchor", "positive", "negative"), *TABLE])
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_table_is_read_as_json_lines_are(tmp_path: Path, suffix: str) -> None:
    sets = {triples.name: rows_of(triples) for triples in read_triples(write_table(tmp_path / f"pairs{suffix}"))}
    assert sets == {"pairs": [("c", "3")], "pairs-1neg": [("a, b", "1\n2", "x"), ("d", "4", "y")]}


def test_labels_of_a_table_count(tmp_path: Path) -> None:
    path = tmp_path / "judged.csv"
    path.write_text("query;passage;label\nq;good;1\nq;bad;0\n")
    (triples,) = read_triples(path, negatives_from_label=True)
    assert rows_of(triples) == [("q", "good", "bad")]
    with pytest.raises(CorpusError, match=r"judged\.csv:3: a label or score of 0"):
        read_triples(path)


def test_tables_of_a_folder_are_read_if_it_has_no_json_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_table(tmp_path / "first.csv")
    write_table(tmp_path / "second.parquet")
    assert [triples.path.name for triples in read_triples(tmp_path, max_negatives=0)] == ["first.csv", "second.parquet"]
    write(tmp_path / "third.jsonl", {"query": "q", "positive": "p"})
    assert [triples.name for triples in read_triples(tmp_path)] == ["third"]
    assert f"{tmp_path}: not read beside .jsonl files: first.csv, second.parquet" in caplog.text


def test_a_row_without_known_columns_names_those_it_has(tmp_path: Path) -> None:
    path = write(tmp_path / "german.jsonl", {"Frage": "q", "Antwort": "p"})
    with pytest.raises(CorpusError, match=r'german\.jsonl:1: no query: expected a text under "query".*Frage, Antwort'):
        read_triples(path)
    path = write(tmp_path / "half.jsonl", {"query": "q", "Antwort": "p"})
    with pytest.raises(CorpusError, match=r"half\.jsonl:1: no positive: .*: query, Antwort"):
        read_triples(path)


def test_semicolons_are_seen_where_texts_have_commas(tmp_path: Path) -> None:
    path = tmp_path / "semi.csv"
    path.write_text("anchor;positive\na, b, c;d\ne;f, g\n")
    (triples,) = read_triples(path)
    assert rows_of(triples) == [("a, b, c", "d"), ("e", "f, g")]


def test_another_encoding_is_told_without_an_option_that_training_lacks(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes('{"query": "café", "positive": "p"}\n'.encode("latin-1"))
    with pytest.raises(CorpusError, match=r"latin\.jsonl:1: not UTF-8 \(byte 0xe9 .*iconv$"):
        read_triples(path)
