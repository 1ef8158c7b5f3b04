"""The file of vectors of memory tokens: codes written plainly here, streaming, resuming, damage, scores by pylate."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from llm2comp.errors import IndexFolderError
from llm2comp_indexes.format.memory_vectors import MemoryForm, MemoryWriter, memory_bytes, open_memory, to_codes
from llm2comp_indexes.options import MEMORY_KINDS, MemoryKind

PYLATE = json.loads((Path(__file__).parents[2] / "late_interaction" / "pylate.json").read_text())


def draw(rows: int, tokens: int = 3, dimension: int = 13) -> NDArray[np.float32]:
    vectors = np.random.default_rng(7).standard_normal((rows, tokens, dimension))
    return (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float32)


def write(path: Path, vectors: NDArray[np.float32], kind: MemoryKind) -> MemoryForm:
    form = MemoryForm(kind, *vectors.shape[1:])
    with MemoryWriter(path, form) as writer:
        for row in range(0, len(vectors), 4):
            writer.append(to_codes(vectors[row : row + 4], form))
        writer.finish()
    return form


def test_int8_by_the_book(tmp_path: Path) -> None:
    vectors = draw(9)
    form = write(tmp_path / "file", vectors, "int8")
    rows = np.array([8, 0, 3], np.int64)
    expected = [[[round(float(x) * 127) / 127 for x in token] for token in row] for row in vectors[rows]]
    np.testing.assert_allclose(open_memory(tmp_path / "file", form, rows=9).read(rows), expected, atol=1e-7)
    assert (tmp_path / "file").stat().st_size == 64 + 9 * 3 * 13 == memory_bytes(9, form)


def test_binary_by_the_book(tmp_path: Path) -> None:
    vectors = draw(9)
    form = write(tmp_path / "file", vectors, "binary")
    rows = np.array([8, 0, 3], np.int64)
    expected = [[[(1 if x >= 0 else -1) / 13**0.5 for x in token] for token in row] for row in vectors[rows]]
    np.testing.assert_allclose(open_memory(tmp_path / "file", form, rows=9).read(rows), expected, atol=1e-7)
    assert (tmp_path / "file").stat().st_size == 64 + 9 * 3 * 2


@pytest.mark.parametrize("kind", MEMORY_KINDS)
def test_scores_of_pylate(tmp_path: Path, kind: MemoryKind) -> None:
    documents = np.array(PYLATE["documents"], np.float32)
    form = write(tmp_path / "file", documents, kind)
    stored = open_memory(tmp_path / "file", form, rows=len(documents))
    for query, expected in zip(np.array(PYLATE["queries"], np.float32), PYLATE["scores"][kind], strict=True):
        scores = stored.scores(query, np.array([4, 1, 0, 2, 3], np.int64))
        np.testing.assert_allclose(scores, np.array(expected)[[4, 1, 0, 2, 3]], atol=1e-6)


@pytest.mark.parametrize("kind", MEMORY_KINDS)
def test_vectors_read_have_the_codes_of_the_file(tmp_path: Path, kind: MemoryKind) -> None:
    """Rows that a sync takes over from the index do not change, however often."""
    form = write(tmp_path / "file", draw(5), kind)
    stored, rows = open_memory(tmp_path / "file", form, rows=5), np.arange(5)
    np.testing.assert_array_equal(to_codes(stored.read(rows), form), stored.codes(rows))


@pytest.mark.parametrize("kind", MEMORY_KINDS)
def test_continued_file_is_the_same(tmp_path: Path, kind: MemoryKind) -> None:
    vectors = draw(9)
    form = write(tmp_path / "whole", vectors, kind)
    with MemoryWriter(tmp_path / "cut", form) as writer:
        writer.append(to_codes(vectors[:6], form))  # and killed here
    with pytest.raises(IndexFolderError, match="cut or altered"):
        open_memory(tmp_path / "cut", form, rows=6)  # it has no header yet
    with MemoryWriter(tmp_path / "cut", form, rows=4) as writer:
        writer.append(to_codes(vectors[4:], form))
        writer.finish()
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()
    with pytest.raises(IndexFolderError, match="fewer than the 10 rows"):
        MemoryWriter(tmp_path / "cut", form, rows=10)


def test_damage(tmp_path: Path) -> None:
    form = write(tmp_path / "file", draw(5), "int8")
    content = (tmp_path / "file").read_bytes()
    for other in (form._replace(tokens=13, dimension=3), form._replace(kind="binary")):
        with pytest.raises(IndexFolderError, match="cut or altered"):
            open_memory(tmp_path / "file", other, rows=5)
    for damaged in (content[:-1], content + b"\0", b"\0" + content[1:]):
        (tmp_path / "file").write_bytes(damaged)
        with pytest.raises(IndexFolderError, match="cut or altered"):
            open_memory(tmp_path / "file", form, rows=5)
    (tmp_path / "file").unlink()
    with pytest.raises(IndexFolderError, match="No such file"):
        open_memory(tmp_path / "file", form, rows=5)


def test_refused(tmp_path: Path) -> None:
    form = write(tmp_path / "file", draw(5), "int8")
    with pytest.raises(IndexFolderError, match="expected \\(rows, 3, 13\\)"):
        to_codes(draw(2, tokens=4), form)
    broken = draw(2)
    broken[1, 0, 0] = np.nan
    with pytest.raises(IndexFolderError, match="not finite"):
        to_codes(broken, form)
    with pytest.raises(IndexError, match="within 0 and 4"):
        open_memory(tmp_path / "file", form, rows=5).read(np.array([5]))
