"""Metadata columns: what is read back, limits, and altered files."""

import struct
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from llm2comp.corpus.documents import Document
from llm2comp.corpus.read import read_corpus
from llm2comp.errors import IndexFolderError
from llm2comp_indexes.format import metadata
from llm2comp_indexes.format.files import FileRecord, check_content
from llm2comp_indexes.format.metadata import MOST_COLUMNS, Metadata, MetadataWriter, open_metadata
from tests.indexes.processes import run_python

MIXED: list[dict[str, Any]] = [
    {"year": 2020, "lang": "en", "tags": ["a", "b"]},
    {"year": "about 1900", "draft": True, "score": 0.5},
    {},
    {"year": 2021.5, "lang": None, "tags": [], "journal": {"name": "J", "place": {"city": "Ulm"}}},
    {"year": [1, 2.5], "draft": False, "score": float("nan"), "tags": ["c", 7]},
]


def write(path: Path, rows: Iterable[dict[str, Any]]) -> FileRecord | None:
    writer = MetadataWriter(path)
    writer.add(Document(str(number), "", "text", row) for number, row in enumerate(rows))
    return writer.finish()


def read(opened: Metadata, kind: Any, field: str) -> list[Any]:
    columns = [block.column(kind, field) for block in opened.blocks]
    return [value for column in columns for value in column.to_pylist()]


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_values_come_back_by_type(tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "_BATCH_ROWS", batch)
    record = write(tmp_path / "m.arrow", MIXED)
    assert record is not None
    check_content(tmp_path / "m.arrow", record)
    opened = open_metadata(tmp_path / "m.arrow", 5)
    assert opened.fields["year"] == {"integer", "number", "text", "numbers"}
    assert read(opened, "integer", "year") == [2020, None, None, None, None]
    assert read(opened, "text", "year") == [None, "about 1900", None, None, None]
    assert read(opened, "number", "year") == [None, None, None, 2021.5, None]
    assert read(opened, "numbers", "year") == [None, None, None, None, [1.0, 2.5]]
    assert read(opened, "flag", "draft") == [None, True, None, None, False]
    assert read(opened, "texts", "tags") == [["a", "b"], None, None, [], ["c"]]
    assert read(opened, "numbers", "tags") == [None, None, None, None, [7.0]]
    assert read(opened, "number", "score") == [None, 0.5, None, None, None]
    assert read(opened, "text", "journal.place.city") == [None, None, None, "Ulm", None]
    assert opened.blocks[0].column("flag", "year") is None
    assert opened.blocks[0].column("text", "no such field") is None


def test_other_programs_can_read_the_file(tmp_path: Path) -> None:
    write(tmp_path / "m.arrow", MIXED)
    table = pa.ipc.open_file(tmp_path / "m.arrow").read_all()
    assert table.num_rows == 5
    assert table.column("integer:year").to_pylist() == [2020, None, None, None, None]


def test_metadata_of_real_documents(tmp_path: Path) -> None:
    documents = list(islice(read_corpus("python-docs:"), 2000))
    write(tmp_path / "m.arrow", [document.metadata for document in documents])
    opened = open_metadata(tmp_path / "m.arrow", len(documents))
    for field in ("module", "kind"):
        assert read(opened, "text", field) == [document.metadata.get(field) for document in documents]


def test_without_metadata_there_is_no_file(tmp_path: Path) -> None:
    assert write(tmp_path / "m.arrow", [{}, {"a": None}, {"b": float("nan")}]) is None
    assert write(tmp_path / "m.arrow", []) is None
    assert not list(tmp_path.iterdir())


def test_a_temporary_file_is_removed_and_a_left_one_replaced(tmp_path: Path) -> None:
    (tmp_path / "m.arrow.spool").write_bytes(b"of a killed build")
    write(tmp_path / "m.arrow", MIXED)
    assert [path.name for path in tmp_path.iterdir()] == ["m.arrow"]
    assert open_metadata(tmp_path / "m.arrow", 5).rows == 5


def test_numbers_and_texts_at_the_edge(tmp_path: Path) -> None:
    rows = [
        {"n": 2**63 - 1},
        {"n": -(2**63)},
        {"n": 2**63},
        {"n": 10**400},
        {"t": "\ud800 half"},
        {"\udfff": "name"},
        {"t": ""},
        {"t": "\0"},
    ]
    write(tmp_path / "m.arrow", rows)
    opened = open_metadata(tmp_path / "m.arrow", len(rows))
    assert read(opened, "integer", "n")[:3] == [2**63 - 1, -(2**63), None]
    assert read(opened, "number", "n")[2:4] == [2.0**63, None]
    assert read(opened, "large", "n")[2:4] == [None, f"{10**400:x}"]
    assert read(opened, "text", "t")[4:] == ["? half", None, "", "\0"]
    assert read(opened, "text", "?")[5] == "name"


def test_an_object_is_the_list_of_its_names(tmp_path: Path) -> None:
    write(tmp_path / "m.arrow", [{"f": {"k": 1, "o": {}}}, {"f": 5}, {"f": {}}, {"f": None}, {}])
    opened = open_metadata(tmp_path / "m.arrow", 5)
    assert opened.fields == {"f": {"integer", "object"}, "f.k": {"integer"}, "f.o": {"object"}}
    assert read(opened, "object", "f") == [["k", "o"], None, [], None, None]
    assert read(opened, "object", "f.o") == [[], None, None, None, None]


def test_a_whole_number_that_no_double_holds_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "m.arrow", [{"n": 2**64 + 1}, {"n": -(2**64) - 1}, {"n": 2**64}, {"n": [2**60 + 1, 1, True]}])
    opened = open_metadata(tmp_path / "m.arrow", 4)
    assert read(opened, "large", "n") == ["10000000000000001", "-10000000000000001", None, None]
    assert read(opened, "number", "n") == [None, None, 2.0**64, None]
    assert read(opened, "numbers", "n") == [None, None, None, [1.0]]
    assert read(opened, "items", "n") == [None, None, None, ["i1000000000000001", "i1", "i1"]]


@pytest.mark.parametrize("text", ["", "-", "x", "0x1f", "1_0", " 1", "1\n", "+1"])
def test_a_large_number_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    save(tmp_path / "m.arrow", pa.table({"large:n": pa.array([None, text])}))
    with pytest.raises(IndexFolderError, match='the field "n": a whole number that is none'):
        open_metadata(tmp_path / "m.arrow", 2).blocks[0].column("large", "n")


def test_fields_without_end_are_bounded_and_the_user_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "m.arrow", [{f"key {number}": number, "year": number} for number in range(MOST_COLUMNS + 50)])
    opened = open_metadata(tmp_path / "m.arrow", MOST_COLUMNS + 50)
    assert len(opened.fields) == MOST_COLUMNS
    assert opened.left_out
    assert read(opened, "integer", "year") == list(range(MOST_COLUMNS + 50))
    assert len(caplog.records) == 1
    assert "cannot be filtered by" in caplog.text


def test_deep_nesting_ends_without_an_error(tmp_path: Path) -> None:
    row: dict[str, Any] = {"x": 1}
    for _ in range(5000):
        row = {"d": row}
    row["near"] = 1
    write(tmp_path / "m.arrow", [row])
    outer = {".".join("d" * depth) for depth in range(1, 9)}
    assert set(open_metadata(tmp_path / "m.arrow", 1).fields) == {"near", *outer}


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "_BATCH_ROWS", 200)

    def measure(rows: int) -> int:
        def generate() -> Iterator[dict[str, Any]]:
            for number in range(rows):
                yield {"year": number, "source": f"https://example.org/{number}", "tags": ["a", str(number)]}

        tracemalloc.start()
        before = pa.total_allocated_bytes()
        write(tmp_path / f"{rows}.arrow", generate())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert pa.total_allocated_bytes() - before < 1 << 20
        return peak

    measure(400)  # imports
    assert measure(20_000) < measure(2_000) + 200_000


def test_another_number_of_rows_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "m.arrow", MIXED)
    for rows in (0, 4, 6, 10**15):
        with pytest.raises(IndexFolderError, match="5 rows, expected"):
            open_metadata(tmp_path / "m.arrow", rows)


def test_a_missing_file_and_one_cut_anywhere_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.arrow"
    with pytest.raises(IndexFolderError, match=r"m\.arrow"):
        open_metadata(path, 5)
    write(path, MIXED)
    content = path.read_bytes()
    for kept in range(0, len(content), 7):
        path.write_bytes(content[:kept])
        with pytest.raises(IndexFolderError, match=r"m\.arrow"):
            open_metadata(path, 5)


def save(path: Path, table: pa.Table, **options: Any) -> None:
    with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as file:
        file.write_table(table)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_compressed_file_is_refused_before_it_is_unpacked(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "m.arrow", pa.table({"integer:year": pa.array([0] * 100_000)}), compression=codec)
    monkeypatch.setattr(pa.ipc, "read_record_batch", lambda *arguments: pytest.fail("unpacked"))
    with pytest.raises(IndexFolderError, match="compressed"):
        open_metadata(tmp_path / "m.arrow", 100_000)


@pytest.mark.parametrize(
    "column",
    [
        {"integer:year": pa.array([1.5])},
        {"text:lang": pa.array(["en"], pa.large_string())},
        {"text:lang": pa.array(["en"]).dictionary_encode()},
        {"texts:tags": pa.array([[1]])},
        {"number:x": pa.array([None])},
        {"flag:x": pa.array([{"a": True}])},
        {"year": pa.array([1])},
        {"bytes:x": pa.array([b"x"])},
    ],
)
def test_columns_of_other_types_are_refused(tmp_path: Path, column: dict[str, pa.Array]) -> None:
    save(tmp_path / "m.arrow", pa.table(column))
    with pytest.raises(IndexFolderError, match="of type"):
        open_metadata(tmp_path / "m.arrow", 1)


def test_two_columns_of_one_name_and_too_many_are_refused(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["integer:a", "integer:a"])
    many = pa.table({f"integer:{number}": [1] for number in range(MOST_COLUMNS + 1)})
    for table in (twice, many):
        save(tmp_path / "m.arrow", table)
        with pytest.raises(IndexFolderError, match="different"):
            open_metadata(tmp_path / "m.arrow", 1)


def corrupt_offsets(content: bytes) -> bytes:
    """Text offsets far beyond the end of the text."""
    return content.replace(struct.pack("<3i", 0, 5, 10), struct.pack("<3i", 0, 2**30, 2**31 - 1))


def corrupt_text(content: bytes) -> bytes:
    return content.replace(b"firstother", b"fir\xff\xfeother")


@pytest.mark.parametrize("corrupt", [corrupt_offsets, corrupt_text])
def test_contents_are_validated_before_they_are_used(tmp_path: Path, corrupt: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "m.arrow"
    write(path, [{"t": "first", "n": 1}, {"t": "other", "n": 2}])
    assert (damaged := corrupt(content := path.read_bytes())) != content
    path.write_bytes(damaged)
    with pytest.raises(IndexFolderError, match=r"m\.arrow"):
        open_metadata(path, 2).blocks[0].column("text", "t")


FUZZ = """
import random, resource, sys
from pathlib import Path
from llm2comp.errors import IndexFolderError
from llm2comp_indexes.format.metadata import open_metadata
from llm2comp_indexes.filters.parse import parse_where
import pyarrow.compute
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
path, seed, rows = Path(sys.argv[1]), random.Random(int(sys.argv[2])), int(sys.argv[3])
good, refused = path.read_bytes(), 0
texts = ["year > 3 or 'a' in tags or 2 in year", "lang == 'en' or lang or tags", "not draft and score in (1, 0.5)"]
texts += ["'x' in journal.name", "'x' in journal or journal", "big > 3 or big == 2**70", "2**70 in mixed"]
where = [parse_where(text.replace("2**70", str(2**70 + 1))) for text in texts]
for number in range(1000):
    data = bytearray(good)
    for _ in range(seed.choice([1, 1, 2, 8])):
        place = seed.randrange(len(data) // 4 * 4)
        if seed.random() < 0.5:
            data[place] = seed.choice([0, 255, 127, 128, data[place] ^ (1 << seed.randrange(8)), seed.randrange(256)])
        else:
            place -= place % 4
            number4 = seed.choice([2**31 - 1, 2**32 - 1, 2**30, 0, 1, 8, 64, len(data)])
            data[place : place + 4] = number4.to_bytes(4, "little")
    if seed.random() < 0.05:
        data = data[: seed.randrange(len(data))]
    target = path.with_name(f"{number}.arrow")
    target.write_bytes(data)
    try:
        opened = open_metadata(target, rows)
        for filter in where:
            assert filter.mask(opened, rows).shape == (rows,)
    except IndexFolderError:
        refused += 1
    target.unlink()
print(refused)
"""


@pytest.mark.parametrize("seed", range(3))
def test_altered_bytes_never_end_in_more_than_an_error_message(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "m.arrow"
    rows = [*MIXED, {"big": 2**70 + 1, "mixed": [2**70 + 1, "a"]}, {"big": -(2**65) - 1, "journal": {}}]
    write(path, rows)
    assert int(run_python("-W", "error", "-c", FUZZ, path, seed, len(rows))) > 200
