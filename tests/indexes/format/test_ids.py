"""The table from document ids to rows."""

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
    queried = ["not there", *reversed(identifiers), "nor this"]
    matches = _table(tmp_path / "ids", identifiers).find(queried)
    expected = [[row for row, name in enumerate(identifiers) if name == identifier] for identifier in queried]
    assert [rows.tolist() for rows in matches] == expected
    assert all(rows.dtype == np.int64 for rows in matches)


def test_of_a_table_that_was_altered_rows_beyond_the_last_are_left_out(tmp_path: Path) -> None:
    _table(tmp_path / "ids", ["a", "b", "c"])
    content = bytearray((tmp_path / "ids").read_bytes())
    content[24:28] = (7).to_bytes(4, "little")  # the row of the smallest hash
    (tmp_path / "ids").write_bytes(content)
    matches = IdTable(tmp_path / "ids", 3).find(["a", "b", "c"])
    assert sorted(len(rows) for rows in matches) == [0, 1, 1]
    assert {int(row) for rows in matches for row in rows} < {0, 1, 2}
