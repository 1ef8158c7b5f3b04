"""Files of rows without ids, added again with a header in another case or order, or with other columns."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm2comp_indexes import IndexOptions, add_documents, build_index, delete_documents, open_index
from tests.indexes.additions import add, build
from tests.word_encoder import WordEncoder

STRANGERS = "none of its rows came again"


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def metadata(folder: Path) -> list[dict[str, Any]]:
    with open_index(folder, model=WordEncoder()) as index:
        return [hit.metadata for hit in sorted(index.search(["bread"], 100)[0], key=lambda hit: hit.text)]


def test_case_and_order_of_the_header_do_not_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "c.csv", "title,text,Year,Place", "t,bread,1999,Rome", "u,rain,2001,Oslo")
    folder = build(path, tmp_path / "idx")
    write(path, "PLACE,year ,Text,TITLE", "Rome,1999,bread,t", "Oslo,2001,rain,u", "Bonn,2005,snow,v")
    assert add(folder, path) == (1, 0, 2)
    assert metadata(folder) == [
        {"Year": 1999, "Place": "Rome"},
        {"Year": 2001, "Place": "Oslo"},
        {"Place": "Bonn", "Year": 2005},
    ]
    assert STRANGERS not in caplog.text


def test_nor_do_they_in_json_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", json.dumps({"text": "bread", "Year": 1, "at": {"x": 1, "y": 2}}))
    folder = build(path, tmp_path / "idx")
    write(path, json.dumps({"at": {"y": 2, "x": 1}, "YEAR": 1, "Text": "bread"}))
    assert add(folder, path) == (0, 0, 1)


def test_rows_with_ids_are_unchanged_if_columns_change_places(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", "id,text,year,place", "a,bread,1999,Rome")
    folder = build(path, tmp_path / "idx")
    write(path, "place,id,year,text", "Rome,a,1999,bread")
    assert add(folder, path) == (0, 0, 1)
    write(path, "place,id,year,text", "Rome,a,2000,bread")
    assert add(folder, path) == (0, 1, 0)


def test_other_columns_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "c.csv", "title,text,year", "t,bread,1999", "u,rain,2001")
    folder = build(path, tmp_path / "idx")
    write(path, "title,text,year,place", "t,bread,1999,Rome", "u,rain,2001,Oslo")
    assert add(folder, path) == (2, 0, 0)
    [line] = [record.message for record in caplog.records if STRANGERS in record.message]
    assert line.startswith(f'{path}: in the index as "c.csv", and none of its rows came again')
    caplog.clear()
    write(path, "title,text,year,place", "t,bread,1999,Rome", "v,snow,2005,Bonn")
    assert add(folder, path) == (1, 0, 1)
    assert STRANGERS not in caplog.text


def test_nothing_is_told_where_new_rows_are_usual(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options: dict[str, Any] = {"model": WordEncoder(), "source": "news"}
    build_index([{"text": "bread"}], tmp_path / "idx", options=IndexOptions(type="flat"), **options)
    assert add_documents(tmp_path / "idx", [{"text": "rain"}], **options).added == 1
    path = write(tmp_path / "c.csv", "text,year", "snow,1999")
    assert add(tmp_path / "idx", path) == (1, 0, 0)  # a new source
    with open_index(tmp_path / "idx", model=WordEncoder()) as index:
        [identifier] = [hit.id for hit in index.search(["snow"], 9)[0] if hit.text == "snow"]
    delete_documents(tmp_path / "idx", [identifier])
    assert add(tmp_path / "idx", write(path, "text,year", "ice,2000")) == (1, 0, 0)  # it has no rows any more
    assert STRANGERS not in caplog.text
