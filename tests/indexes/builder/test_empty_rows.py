"""Rows without title and text are not indexed, and counted; a title alone is a text."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp.errors import CorpusError
from llm2comp_indexes import (
    IndexOptions,
    VectorFiles,
    add_documents,
    build_from_vectors,
    build_index,
    encode_shard,
    open_index,
)
from tests.word_encoder import WordEncoder

FLAT = IndexOptions(type="flat")
ROWS = [
    {"id": "a", "title": "", "text": "bread rises"},
    {"id": "b", "title": "", "text": ""},
    {"id": "c", "title": "Rain", "text": ""},
    {"id": "d", "title": " ", "text": " \n"},
]
LINE = '2 rows without title and text, the first "b": not indexed'


def jsonl(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def csv(folder: Path) -> Path:
    path = folder / "rows.csv"
    path.write_text('id,title,text\na,,bread rises\nb,,\nc,Rain,\nd," "," "\n')
    return path


def parquet(folder: Path) -> Path:
    import pyarrow
    from pyarrow import parquet as writer

    writer.write_table(pyarrow.Table.from_pylist(ROWS), folder / "rows.parquet")
    return folder / "rows.parquet"


def ids(folder: Path) -> dict[str, str]:
    with open_index(folder, model=WordEncoder()) as index:
        return {hit.id: hit.title + hit.text for hit in index.search(["bread"], k=10)[0]}


@pytest.mark.parametrize("make", [jsonl, csv, parquet, lambda folder: iter(ROWS)])
def test_are_left_out_of_every_kind_of_rows(tmp_path: Path, make: Any, caplog: pytest.LogCaptureFixture) -> None:
    report = build_index(make(tmp_path), tmp_path / "idx", model=WordEncoder(), options=FLAT)
    assert (report.documents, report.empty, report.skipped) == (2, 2, 0)
    assert ids(tmp_path / "idx") == {"a": "bread rises", "c": "Rain"}
    [line] = [record.message for record in caplog.records if "without" in record.message]
    assert line.endswith(f": {LINE}")


def test_an_addition_and_a_shard_count_them_too(tmp_path: Path) -> None:
    build_index([{"id": "z", "text": "oven"}], tmp_path / "idx", model=WordEncoder(), options=FLAT)
    added = add_documents(tmp_path / "idx", jsonl(tmp_path), model=WordEncoder())
    assert (added.added, added.empty) == (2, 2)
    shard = encode_shard(jsonl(tmp_path), tmp_path / "shards", model=WordEncoder())
    assert (shard.documents, shard.corpus_documents, shard.empty) == (2, 2, 2)


def test_a_corpus_of_nothing_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="rows: an empty corpus: no document in it; 1 row without title and text"):
        build_index([{"id": "b", "text": ""}], tmp_path / "idx", model=WordEncoder(), options=FLAT)


def test_vectors_made_elsewhere_keep_their_documents(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.eye(4, 8, dtype=np.float32) + 0.01)
    (tmp_path / "ids.txt").write_text("a\nb\nc\nd\n")
    files = VectorFiles([tmp_path / "vectors.npy"], tmp_path / "ids.txt")
    report = build_from_vectors(files, tmp_path / "idx", corpora=[jsonl(tmp_path)], options=FLAT)
    assert (report.documents, report.empty) == (4, 0)
