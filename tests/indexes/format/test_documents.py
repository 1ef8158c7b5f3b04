"""Documents of a segment by row: what was written is read back; anything else is refused."""

import json
import zlib
from pathlib import Path

import pytest

from llm2comp.corpus.documents import Document
from llm2comp.errors import IndexFolderError
from llm2comp_indexes.format.documents import ROW_BYTES, DocumentReader, DocumentWriter, document_line

DOCUMENTS = [
    Document("a", "", "", {}),
    Document(
        "ü/€",
        "A title\nof two lines",
        'quotes " and \u2028 and \ud83d',
        {"year": 2020, "tags": ["x", None], "inner": {"deep": 1.5}},
    ),
    Document("c", "C", "ends with white space \n ", {"text": "{}"}),
]


def _write(folder: Path, lines: list[bytes]) -> tuple[Path, Path]:
    files = folder / "documents.jsonl", folder / "documents.offsets"
    with DocumentWriter(*files) as writer:
        writer.add(lines)
        writer.finish()
    return files


def test_every_row_comes_back_alone_and_in_any_order(tmp_path: Path) -> None:
    reader = DocumentReader(*_write(tmp_path, list(map(document_line, DOCUMENTS))), len(DOCUMENTS))
    assert len(reader) == 3
    assert [reader[row] for row in (2, 0, 1)] == [DOCUMENTS[row] for row in (2, 0, 1)]
    assert json.loads(reader.line(2))["text"] == "ends with white space \n "


@pytest.mark.parametrize("row", [-1, 3, 1 << 40])
def test_a_row_that_is_not_there_is_an_error(row: int, tmp_path: Path) -> None:
    reader = DocumentReader(*_write(tmp_path, list(map(document_line, DOCUMENTS))), len(DOCUMENTS))
    with pytest.raises(IndexError, match="expected within 0 and 2"):
        reader[row]


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": "a", "title": "", "text": "", "metadata": {}} {"id": "b"}\n',
        b'{"id": "a", "title": "", "text": "", "metadata": {}}',
        b'{"id": 1, "title": "", "text": "", "metadata": {}}\n',
        b'{"id": "a", "title": "", "text": "", "metadata": []}\n',
        b'{"id": "a", "title": "", "text": "", "metadata": {}, "more": 1}\n',
        b'["a", "", "", {}]\n',
        b"{\n",
        b"\xff\n",
        b"\n",
    ],
)
def test_a_crafted_line_with_a_right_checksum_is_refused_in_words(line: bytes, tmp_path: Path) -> None:
    reader = DocumentReader(*_write(tmp_path, [line]), 1)
    with pytest.raises(IndexFolderError, match="document 1 is not one that this package wrote"):
        reader[0]


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_changed_byte_is_found_in_its_row_and_in_no_other(row: int, tmp_path: Path) -> None:
    lines, offsets = _write(tmp_path, list(map(document_line, DOCUMENTS)))
    content = bytearray(lines.read_bytes())
    content[sum(len(document_line(document)) for document in DOCUMENTS[:row]) + 5] ^= 1
    lines.write_bytes(content)
    reader = DocumentReader(lines, offsets, 3)
    for other in range(3):
        if other == row:
            with pytest.raises(IndexFolderError, match=f"document {row + 1} was altered"):
                reader[other]
        else:
            assert reader[other] == DOCUMENTS[other]


def test_crafted_offsets_lead_nowhere_else(tmp_path: Path) -> None:
    lines, offsets = _write(tmp_path, list(map(document_line, DOCUMENTS)))
    for end in (0, 1 << 63, (1 << 64) - 1):
        content = end.to_bytes(8, "little") + zlib.crc32(b"").to_bytes(4, "little")
        offsets.write_bytes(content + offsets.read_bytes()[ROW_BYTES:])
        with pytest.raises(IndexFolderError, match="document 1"):
            DocumentReader(lines, offsets, 3)[0]
