"""Parts: written whole, compared with their checksums; joined, each document once and in the order of the corpus."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from llm2comp.corpus.documents import Document
from llm2comp.errors import CorpusError, IndexFolderError
from llm2comp_indexes.distributed.done import DoneDocuments, write_done
from llm2comp_indexes.distributed.joining import JoinedParts
from llm2comp_indexes.distributed.parts import (
    PartFacts,
    PartRow,
    list_parts,
    part_path,
    read_facts,
    read_part,
    write_part,
)
from llm2comp_indexes.format.documents import document_line

FACTS = PartFacts("d" * 64, 2, 2, True, ("one was malformed",), 1, (), 0, (2, 1, 64))


def write(folder: Path, key: str, *documents: Document, made_id: bool = False) -> Path:
    path = part_path(folder, key)
    lines = [document_line(document) for document in documents]
    vectors = np.eye(len(documents), 4, dtype=np.float32)
    write_part(path, [PartRow(line, line, made_id) for line in lines], vectors, FACTS)
    return path


def test_reads_back(tmp_path: Path) -> None:
    document = Document("a", "Title", "text\r\n\u2028more", {"year": 1999, "none": None})
    chunk = Document("a#2", "Title", "more", {"document": "a"})
    line, second = document_line(document), document_line(chunk)
    vectors = np.array([[0.6, 0.8], [1, 0]], np.float32)
    path = part_path(tmp_path, "000000/000001")
    write_part(path, [PartRow(line, line, True), PartRow(second, None, True)], vectors, FACTS)
    assert path == tmp_path / "000000" / "000001.parquet"
    part = read_part(path)
    assert part.rows == [PartRow(line, line, True), PartRow(second, None, True)]
    assert np.array_equal(part.vectors, vectors)
    assert read_facts(path) == FACTS


def test_part_without_rows(tmp_path: Path) -> None:
    path = part_path(tmp_path, "000000/000000")
    write_part(path, [], np.empty((0, 4), np.float32), FACTS)
    assert read_part(path).rows == []


def test_altered_part_is_removed(tmp_path: Path) -> None:
    path = write(tmp_path, "000000/000000", *(Document(f"d{row}", "", "text " * row) for row in range(40)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # within the vectors
    path.write_bytes(content)
    with pytest.raises(IndexFolderError, match=r"000000\.parquet: was altered .* run this again"):
        read_part(path)
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 100])
def test_unreadable_part_counts_as_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "part.parquet"
    assert read_facts(path) is None
    path.write_bytes(content)
    assert read_facts(path) is None


def test_list_is_ordered_and_leaves_drafts_out(tmp_path: Path) -> None:
    for key in ("000001/000000", "000000/000001", "000000/000000"):
        write(tmp_path, key, Document(key, "", "text"))
    (tmp_path / "000000" / ".000002.parquet.77.abcd").touch()
    (tmp_path / "job.json").touch()
    names = [path.relative_to(tmp_path).as_posix() for path in list_parts(tmp_path)]
    assert names == ["000000/000000.parquet", "000000/000001.parquet", "000001/000000.parquet"]


def test_equal_rows_are_numbered_as_in_one_reading(tmp_path: Path) -> None:
    one, two = Document("rows#0123456789abcdef", "", "same"), Document("rows#0123456789abcdef-2", "", "same")
    parts = [write(tmp_path, f"00000{number}/000000", one, two, made_id=True) for number in range(2)]
    [block] = JoinedParts(parts, 4, pytest.fail).blocks()
    base = "rows#0123456789abcdef"
    assert [row.id for row in block.rows] == [base, f"{base}-2", f"{base}-3", f"{base}-4"]


def test_duplicate_ids_of_the_corpus(tmp_path: Path) -> None:
    parts = [write(tmp_path, f"00000{number}/000000", Document("x", "", f"text {number}")) for number in range(2)]
    messages: list[str] = []
    joined = JoinedParts(parts, 4, messages.append)
    [block] = joined.blocks()
    assert [row.text for row in block.rows] == ["text 0"]
    assert joined.documents == 1
    assert len(messages) == 1
    assert 'id "x" occurs twice' in messages[0]

    def fail(message: str) -> None:
        raise CorpusError(message)

    with pytest.raises(CorpusError, match="ids must be unique"):
        list(JoinedParts(parts, 4, fail).blocks())


def test_equal_documents_of_a_dataset_are_one(tmp_path: Path) -> None:
    parts = [write(tmp_path, f"00000{number}/000000", Document("x", "", "text")) for number in range(3)]
    joined = JoinedParts(parts, 4, None)
    assert [len(block.rows) for block in joined.blocks()] == [1]
    assert joined.repeated == 2
    parts.append(write(tmp_path, "000009/000000", Document("x", "", "another text")))
    with pytest.raises(IndexFolderError, match='id "x" belongs to two different documents'):
        list(JoinedParts(parts, 4, None).blocks())


def test_done_documents(tmp_path: Path) -> None:
    def names() -> Iterator[str]:
        yield from ("b", "a", "ü" * 50)

    assert write_done(tmp_path / "done.npy", names()) == 3
    done = DoneDocuments(tmp_path / "done.npy")
    assert [name in done for name in ("a", "b", "ü" * 50, "c", "")] == [True, True, True, False, False]
