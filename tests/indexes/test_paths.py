"""Indexes in folders whose names are not UTF-8, or are spelled in another encoding, as the locale has it."""

import json
import os
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from llm2comp_indexes import (
    IndexOptions,
    SearchOptions,
    add_documents,
    build_index,
    delete_documents,
    merge_index,
    open_index,
    verify_index,
)
from tests.child_process import run_python
from tests.word_encoder import WordEncoder

KINDS = ["Flat", "IVF4,Flat", "HNSW8", "IVF16_HNSW8,Flat", "PQ4x4"]
"""Every way of opening a file: mapped, lists, a graph, both, tried in a process of its own."""


@pytest.fixture(params=[b"caf\xe9", b"\xff\xfe", "caf\u00e9".encode()])
def strange(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / os.fsdecode(request.param)
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    rows = [{"_id": str(row), "text": f"bread number {row} oven", "year": row} for row in range(600)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_is_built_and_searched_under_any_name(strange: Path, kind: str) -> None:
    options = IndexOptions(kind, hybrid=True)
    build_index([strange / "corpus.jsonl"], strange / "index", model=WordEncoder(), options=options)
    with open_index(strange / "index", model=WordEncoder()) as index:
        asked = SearchOptions(where="year > 5", mode="hybrid")
        assert [hit.id for hit in index.search(["number 7"], 1, options=asked)[0]] == ["7"]
    verify_index(strange / "index")


def test_an_index_is_changed_under_any_name(strange: Path) -> None:
    (strange / "more.jsonl").write_text(json.dumps({"_id": "new", "text": "quinces"}))
    build_index([strange / "corpus.jsonl"], strange / "index", model=WordEncoder())
    add_documents(strange / "index", [strange / "more.jsonl"], model=WordEncoder())
    delete_documents(strange / "index", ["7"])
    merge_index(strange / "index")
    index = open_index(strange / "index", model=WordEncoder())
    assert [hit.id for hit in index.search(["quinces"], 1)[0]] == ["new"]
    assert "7" not in [hit.id for hit in index.search(["number 7"], 5)[0]]


def test_a_parquet_corpus_is_read_under_any_name(strange: Path) -> None:
    with (strange / "corpus.parquet").open("wb") as file:
        parquet.write_table(pa.table({"_id": ["a", "b"], "text": ["bread", "tides"]}), file)
    build_index([strange / "corpus.parquet"], strange / "index", model=WordEncoder())
    assert len(open_index(strange / "index", model=WordEncoder())) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="locales of Linux")
@pytest.mark.parametrize("utf8", ["0", "1"])
def test_a_c_locale_opens_what_another_locale_wrote(strange: Path, utf8: str) -> None:
    """Without UTF-8 mode, Python then decodes names as ASCII and keeps other bytes as lone surrogates."""
    for number, kind in enumerate(KINDS):
        options = IndexOptions(kind)
        build_index([strange / "corpus.jsonl"], strange / str(number), model=WordEncoder(), options=options)
    code = """
import sys
from pathlib import Path
from llm2comp_indexes import open_index
from tests.word_encoder import WordEncoder

for folder in sorted(Path(sys.argv[1]).glob("[0-9]")):
    assert [hit.id for hit in open_index(folder, model=WordEncoder()).search(["number 7"], 1)[0]] == ["7"]
print(sys.getfilesystemencoding())
"""
    environment = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": utf8}
    encoding = run_python(code, strange, environment=environment).strip()
    assert encoding == ("utf-8" if utf8 == "1" else "ascii")
