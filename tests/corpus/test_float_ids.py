"""Ids that pandas wrote as floats: the same in CSV, TSV, JSON and parquet files, and no two ids become one."""

import logging
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2comp.corpus.float_ids import find_float_ids
from llm2comp.corpus.read import read_corpus, read_qrels, read_queries
from llm2comp.corpus.trec import read_run
from llm2comp.errors import CorpusError

NOTE = "1.0 is read as 1"


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"id": [None, 7, 0, 12, -3], "text": list("abcde")})


def write_all(frame: pd.DataFrame, folder: Path, name: str) -> list[Path]:
    frame.to_csv(folder / f"{name}.csv", index=False)
    frame.to_csv(folder / f"{name}.tsv", index=False, sep="\t")
    frame.to_json(folder / f"{name}.jsonl", orient="records", lines=True)
    frame.to_parquet(folder / f"{name}.parquet", index=False)
    return [folder / f"{name}.{suffix}" for suffix in ("csv", "tsv", "jsonl", "parquet")]


def test_all_kinds_of_files_give_the_same_ids(tmp_path: Path, frame: pd.DataFrame) -> None:
    for path in write_all(frame, tmp_path, "c"):
        ids = [document.id for document in read_corpus(path)]
        assert ids[0].startswith(f"{path.name}#")
        assert ids[1:] == ["7", "0", "12", "-3"]
    for path in write_all(frame[1:], tmp_path, "queries"):
        assert read_queries(path) == {"7": "b", "0": "c", "12": "d", "-3": "e"}
    judged = pd.DataFrame({"query-id": [7.0, 0.0, 12.0], "corpus-id": [12.0, 7.0, 7.0], "score": [1, 0, 2]})
    for path in write_all(judged, tmp_path, "qrels"):
        assert read_qrels(path) == {"7": {"12": 1}, "0": {"7": 0}, "12": {"7": 2}}


def test_one_line_says_so(tmp_path: Path, frame: pd.DataFrame, caplog: pytest.LogCaptureFixture) -> None:
    path = write_all(frame, tmp_path, "c")[0]
    assert list(read_corpus(path)) == list(read_corpus(path))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"{path}: every id in id is a whole number with .0" in caplog.text
    assert NOTE in caplog.text


def test_judgements_separated_by_spaces(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "qrels.txt"
    path.write_text("7.0 0 12.0 1\n8.0 0 d1 1\n")
    assert read_qrels(path) == {"7": {"12.0": 1}, "8": {"d1": 1}}
    assert "every id in qid is" in caplog.text
    path.write_text("7.0 0 12.0 1\n7 0 12 2\n")
    assert read_qrels(path) == {"7.0": {"12.0": 1}, "7": {"12": 2}}


@pytest.mark.parametrize("others", [["1"], ["1.10"], ["1.00"], ["01.0"], ["v1"], ["1.0.1"], ["1e3"], ["-0.0"]])
def test_ids_stay_if_one_is_of_another_kind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, others: list[str]
) -> None:
    ids = ["1.0", "2.0", *others]
    for name, delimiter in (("c.csv", ","), ("c.tsv", "\t")):
        (tmp_path / name).write_text("\n".join(f"{identifier}{delimiter}text" for identifier in ["id", *ids]))
        assert [document.id for document in read_corpus(tmp_path / name)] == ids
        (tmp_path / name).write_text("\n".join(f"{identifier}{delimiter}a text" for identifier in ids))
        assert list(read_queries(tmp_path / name)) == ids
    assert NOTE not in caplog.text


@pytest.mark.parametrize("large", ["9007199254740992.0", "1e+16", "1.152921504606847e+18", "-9007199254740993.0"])
def test_large_floats_are_refused_as_in_json_and_parquet(tmp_path: Path, large: str) -> None:
    rows = ["id,text", "9007199254740991.0,a", f"{large},b", "1.0,c"]
    for name, delimiter in (("c.csv", ","), ("c.tsv", "\t")):
        path = tmp_path / name
        path.write_text("\n".join(rows).replace(",", delimiter))
        with pytest.raises(
            CorpusError, match=rf"^{path}:3: an id is the floating-point number .* several whole numbers"
        ):
            list(read_corpus(path))
        skipped = list[str]()
        documents = list(read_corpus(path, on_error="skip", on_skip=skipped.append))
        assert [document.id for document in documents] == ["9007199254740991", "1"]
        assert len(skipped) == 1
    path = tmp_path / "qrels.txt"
    path.write_text(f"q 0 {large} 1\nq 0 1.0 1\n")
    with pytest.raises(CorpusError, match=rf"^{path}:1: an id is the floating-point number"):
        read_qrels(path)
    path.write_text(f"q 0 {large} 1\nq 0 d1 1\n")
    assert read_qrels(path) == {"q": {large: 1, "d1": 1}}


def test_ids_of_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "run.trec"
    path.write_text("1.0 Q0 7.0 1 0.5 x\n1.0 Q0 8.0 2 0.25 x\n2.0 Q0 7.0 1 0.5 x\n")
    assert read_run(path) == {"1": {"7": 0.5, "8": 0.25}, "2": {"7": 0.5}}
    assert f"{path}: every id in qid and docid" in caplog.text
    path.write_text("1.0 Q0 7.0 1 0.5 x\n2.0 Q0 v8 2 0.25 x\n")
    assert read_run(path) == {"1": {"7.0": 0.5}, "2": {"v8": 0.25}}
    path.write_text("q Q0 1e+16 1 0.5 x\n")
    with pytest.raises(CorpusError, match=rf"^{path}: an id is the floating-point number"):
        read_run(path)


def test_metadata_stays(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("id,text,year\n1.0,a,1999.0\n")
    assert next(iter(read_corpus(path, csv_strings=True))).metadata == {"year": "1999.0"}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["1", "1.0", "2.0", "10.0", "1.10", "x", ""]), max_size=4))
def test_a_column_is_all_floats_or_stays(ids: list[str]) -> None:
    given_ids = {identifier for identifier in ids if identifier}
    expected = bool(given_ids) and given_ids <= {"1.0", "2.0", "10.0"}
    assert find_float_ids(((identifier, "text") for identifier in ids), (0, 1)) == ({0} if expected else set())
