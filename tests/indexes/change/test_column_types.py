"""Additions to sources whose CSV columns have types: nothing is mixed in silence."""

from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import CorpusError, IndexFolderError, SettingsError
from llm2comp_indexes import SearchOptions, encode_shard, open_index
from llm2comp_indexes.builder.shard_file import read_shard
from llm2comp_indexes.format.manifest import read_manifest
from tests.indexes.additions import add, build
from tests.indexes.forging import forge
from tests.word_encoder import WordEncoder


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def find(folder: Path, where: str | None = None) -> dict[str, object]:
    with open_index(folder, model=WordEncoder()) as index:
        return {hit.id: hit.metadata for hit in index.search(["bread"], 100, options=SearchOptions(where=where))[0]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "c.csv", "id,text,year,code", "a,bread,1999,x", "b,rain,2001,")


@pytest.fixture
def folder(path: Path, tmp_path: Path) -> Path:
    return build(path, tmp_path / "idx")


def test_numbers_are_compared_as_numbers(folder: Path) -> None:
    assert find(folder, "year > 2000") == {"b": {"year": 2001, "code": None}}
    [source] = read_manifest(folder).sources or ()
    assert source.columns == (("year", "number"), ("code", "text"))


def test_the_same_file_again_changes_nothing(folder: Path, path: Path) -> None:
    commit = read_manifest(folder).commit
    assert add(folder, path) == (0, 0, 2)
    assert read_manifest(folder).commit == commit


def test_columns_keep_their_types(folder: Path, path: Path) -> None:
    """Text stays text, though all values of the rows that came are numbers."""
    write(path, "id,text,year,code", "c,snow,2005,7")
    assert add(folder, path) == (1, 0, 0)
    assert find(folder)["c"] == {"year": 2005, "code": "7"}


def test_a_value_of_another_type_is_a_malformed_row(folder: Path, path: Path) -> None:
    write(path, "id,text,year", "a,bread,1999", "c,snow,unknown")
    with pytest.raises(CorpusError, match=r'c\.csv:3: "year" is \'unknown\', in a column whose type .* is number'):
        add(folder, path)
    assert add(folder, path, on_error="skip")[0] == 0


def test_new_columns_get_a_type(folder: Path, path: Path) -> None:
    write(path, "id,text,year,price", "c,snow,2005,1.5")
    assert add(folder, path) == (1, 0, 0)
    [source] = read_manifest(folder).sources or ()
    assert source.columns == (("year", "number"), ("code", "text"), ("price", "number"))


def test_texts_stay_texts(path: Path, tmp_path: Path) -> None:
    folder = build(path, tmp_path / "idx", csv_strings=True)
    assert find(folder)["b"] == {"year": "2001", "code": ""}
    assert add(folder, path) == (0, 0, 2)
    assert add(folder, path, csv_strings=True) == (0, 0, 2)


def test_typed_columns_cannot_become_texts(folder: Path, path: Path) -> None:
    with pytest.raises(SettingsError, match='in the index as "c.csv", with types of CSV columns'):
        add(folder, path, csv_strings=True)
    assert add(folder, path, csv_strings=True, source="texts")[:1] == (0,)


@pytest.mark.parametrize("names", [("strings", "columns"), None])
def test_an_index_from_before_types_goes_on_with_texts(
    names: tuple[str, ...] | None, path: Path, tmp_path: Path
) -> None:
    folder = build(path, tmp_path / "idx", csv_strings=True)
    if names is None:  # version 0.1.0 recorded no sources at all
        forge(folder, lambda manifest: [manifest.pop(name) for name in ("sources", "unlisted")])
    else:
        forge(folder, lambda manifest: [manifest["sources"][0].pop(name) for name in names])
    assert add(folder, path) == (0, 0, 2)
    write(path, "id,text,year,code", "c,snow,2005,7")
    assert add(folder, path) == (1, 0, 0)
    assert find(folder)["c"] == {"year": "2005", "code": "7"}


@pytest.mark.parametrize("columns", [[["year"]], [["year", "color"]], [[1, "text"]], ["year"]])
def test_malformed_columns_of_a_source(columns: Any, folder: Path) -> None:
    forge(folder, lambda manifest: manifest["sources"][0].update(columns=columns))
    with pytest.raises(IndexFolderError, match=r"manifest\.json"):
        read_manifest(folder)


def test_shards_keep_types(path: Path, tmp_path: Path) -> None:
    report = encode_shard([path], tmp_path / "shards", model=WordEncoder())
    [source] = read_shard(report.folder).sources or ()
    assert source.columns == (("year", "number"), ("code", "text"))
