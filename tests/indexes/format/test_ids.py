"""Ids to rows, in the file of an index."""

from pathlib import Path

import numpy as np
import pytest

from llm2comp_indexes.format.ids import IdTable, IdTableWriter


def _table(path: Path, identifiers: list[str]) -> IdTable:
    writer = IdTableWriter()
    writer.add(identifiers)
    writer.write(path)
    return IdTable(path, len(identifiers))


@pytest.mark.parametrize(
    "identifiers",
    [[f"document {row}" for row in range(1000)], ["a", "a", "b", "a", "", "ü"], ["\ud800", "\udfff", "same", "same"]],
    ids=["one", "many", "odd"],
)
def test_every_id_has_its_rows_ascending_and_another_none(identifiers: list[str], tmp_path: Path) -> None:
    asked = ["not there", *reversed(identifiers), "nor this"]
    found = _table(tmp_path / "ids", identifiers).find(asked)
    expected = [[row for row, name in enumerate(identifiers) if name == wanted] for wanted in asked]
    assert [rows.tolist() for rows in found] == expected
    assert all(rows.dtype == np.int64 for rows in found)


def test_of_a_table_that_was_altered_rows_beyond_the_last_are_left_out(tmp_path: Path) -> None:
    _table(tmp_path / "ids", ["a", "b", "c"])
    content = bytearray((tmp_path / "ids").read_bytes())
    content[24:28] = (7).to_bytes(4, "little")  # the row of the smallest hash
    (tmp_path / "ids").write_bytes(content)
    found = IdTable(tmp_path / "ids", 3).find(["a", "b", "c"])
    assert sorted(len(rows) for rows in found) == [0, 1, 1]
    assert {int(row) for rows in found for row in rows} < {0, 1, 2}
