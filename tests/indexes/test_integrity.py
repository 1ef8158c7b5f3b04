"""Damage and malice: any altered byte is found and named, and no manifest makes us read outside the folder."""

import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import IndexFolderError
from llm2comp_indexes import build_index, open_index, verify_index
from llm2comp_indexes.checked_files import FileRecord
from llm2comp_indexes.manifest import Manifest, Segment, read_manifest, write_manifest
from tests.word_encoder import WordEncoder

FILES = ["manifest.json", "segments/000001/vectors.faiss", "segments/000001/documents.jsonl", "segments/000001/documents.offsets"]


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the manifest and signs it anew, as an attacker would."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    content.pop("checksum", None)
    content["checksum"] = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    path.write_text(json.dumps(content))


def forge_file(folder: Path, name: str, data: bytes) -> None:
    """Replaces a file of the segment and its record."""
    (folder / "segments" / "000001" / name).write_bytes(data)
    record = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    forge(folder, lambda manifest: manifest["segments"][0]["files"].update({name: record}))


def use_everything(folder: Path, encoder: WordEncoder) -> None:
    with open_index(folder, model=encoder) as index:
        index.search(["bread"], k=5)


def test_an_untouched_index_verifies(index_folder: Path) -> None:
    assert verify_index(index_folder).documents == 5


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_found_by_verify_and_before_an_answer(index_folder: Path, encoder: WordEncoder, name: str) -> None:
    path = index_folder / name
    good = path.read_bytes()
    for position in {*range(0, len(good), 5), len(good) - 1}:
        flip(path, position)
        with pytest.raises(IndexFolderError, match=path.name):
            verify_index(index_folder)
        with pytest.raises(IndexFolderError, match=path.name):
            use_everything(index_folder, encoder)
        path.write_bytes(good)
    use_everything(index_folder, encoder)


@pytest.mark.parametrize("name", FILES)
def test_a_cut_or_missing_file_is_found(index_folder: Path, encoder: WordEncoder, name: str) -> None:
    path = index_folder / name
    good = path.read_bytes()
    for kept in (0, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:kept])
        for use in (verify_index, lambda folder: open_index(folder, model=encoder)):
            with pytest.raises(IndexFolderError, match=path.name):
                use(index_folder)
    path.unlink()
    with pytest.raises(IndexFolderError, match=path.name):
        verify_index(index_folder)


def test_verify_names_every_damaged_file(index_folder: Path) -> None:
    for name in FILES[1:]:
        flip(index_folder / name, 7)
    with pytest.raises(IndexFolderError) as failure:
        verify_index(index_folder)
    assert all(name in str(failure.value) for name in FILES[1:])


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match="no such index folder; build one with: llm2comp index build"):
        open_index(tmp_path / "missing")
    with pytest.raises(IndexFolderError, match=r"holds no index \(no manifest.json\)"):
        open_index(tmp_path)


def test_a_newer_format_is_refused_in_words(index_folder: Path) -> None:
    forge(index_folder, lambda manifest: manifest.update(format=2))
    with pytest.raises(IndexFolderError, match="index format 2, this llm2comp reads up to 1: pip install --upgrade"):
        open_index(index_folder)


def segment(manifest: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = manifest["segments"][0]
    return first


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "absolute segment": lambda m: segment(m).update(name="/etc/00"),
    "parent segment": lambda m: segment(m).update(name="../../etc"),
    "segment in other digits": lambda m: segment(m).update(name="٠٠٠٠٠١"),
    "segment with a line break": lambda m: segment(m).update(name="000001\n"),
    "absolute file": lambda m: segment(m)["files"].update({"/etc/passwd": {"bytes": 1, "sha256": ""}}),
    "parent file": lambda m: segment(m)["files"].update({"../../../secret": segment(m)["files"].pop("vectors.faiss")}),
    "fewer files": lambda m: segment(m)["files"].pop("documents.offsets"),
    "huge count": lambda m: (segment(m).update(documents=10**15), m.update(documents=10**15)),
    "plausible huge count": lambda m: (segment(m).update(documents=10**9), m.update(documents=10**9)),
    "huge number": lambda m: segment(m).update(documents=10**4000),
    "negative count": lambda m: (segment(m).update(documents=-5), m.update(documents=-5)),
    "count as text": lambda m: segment(m).update(documents="5"),
    "count as truth": lambda m: segment(m).update(documents=True),
    "count as fraction": lambda m: segment(m).update(documents=5.0),
    "wrong sum": lambda m: m.update(documents=6),
    "huge dimension": lambda m: m.update(dimension=2**31),
    "other dimension": lambda m: m.update(dimension=64),
    "no dimension": lambda m: m.pop("dimension"),
    "huge file": lambda m: segment(m)["files"]["vectors.faiss"].update(bytes=2**61),
    "no segments": lambda m: m.update(segments={}),
    "the same segment twice": lambda m: m.update(segments=m["segments"] * 2, documents=10),
    "segment as text": lambda m: m.update(segments=["000001"]),
    "other metric": lambda m: m.update(metric="l2"),
    "other type": lambda m: m.update(factory="HNSW32"),
    "no model": lambda m: m.update(model=None),
    "model of another type": lambda m: m["model"].update(name=["pickle"]),
    "fingerprint of another type": lambda m: m["model"].update(fingerprint=None),
    "no format": lambda m: m.pop("format"),
    "format as text": lambda m: m.update(format="1"),
}


@pytest.mark.parametrize("change", FORGERIES.values(), ids=FORGERIES.keys())
def test_forged_manifests_are_refused_before_any_file_is_read(
    index_folder: Path, change: Callable[[dict[str, Any]], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    forge(index_folder, change)
    monkeypatch.setattr("llm2comp_indexes.manifest.check_size", lambda path, record: pytest.fail(f"looked at {path}"))
    for use in (open_index, verify_index):
        with pytest.raises(IndexFolderError, match="manifest"):
            use(index_folder)


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"format": 1}', "{" * 100_000, "[" * 100_000, '{"format": ' + "9" * 5000 + "}", "\x00", '{"format": NaN}'], ids=range(9)
)
def test_a_manifest_that_is_none_is_refused(index_folder: Path, content: str) -> None:
    (index_folder / "manifest.json").write_text(content)
    with pytest.raises(IndexFolderError, match=r"manifest\.json"):
        open_index(index_folder)


def test_a_giant_manifest_is_not_read(index_folder: Path) -> None:
    with (index_folder / "manifest.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(IndexFolderError, match="larger than"):
        open_index(index_folder)


@pytest.mark.parametrize("name", [*FILES, "segments", "segments/000001"])
def test_links_are_refused(tmp_path: Path, index_folder: Path, name: str) -> None:
    path = index_folder / name
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IndexFolderError, match=path.name):
        open_index(index_folder)


def flat_file(kind: bytes = b"IxFI", dimension: int = 32, count: int = 5, metric: int = 0, floats: int = 160) -> bytes:
    return struct.pack("<4siqqqBiQ", kind, dimension, count, 1 << 20, 1 << 20, 1, metric, floats) + bytes(4 * 160)


def test_the_forged_file_would_pass_if_it_were_right(index_folder: Path, encoder: WordEncoder) -> None:
    forge_file(index_folder, "vectors.faiss", flat_file())
    assert [hit.score for hit in open_index(index_folder, model=encoder).search(["bread"])[0]] == [0.0] * 5


@pytest.mark.parametrize(
    "change",
    [{"kind": b"IHNf"}, {"kind": b"IxF2"}, {"count": 6}, {"count": 2**40}, {"dimension": 64}, {"floats": 2**60}, {"floats": 0}, {"metric": 1}],
    ids=str,
)
def test_a_crafted_faiss_file_never_reaches_faiss(index_folder: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    forge_file(index_folder, "vectors.faiss", flat_file(**change))
    monkeypatch.setattr("faiss.read_index", lambda path: pytest.fail("read a crafted file"))
    with pytest.raises(IndexFolderError, match="not a flat FAISS index"):
        open_index(index_folder)


@pytest.mark.parametrize(
    "row", [struct.pack("<QI", 2**63, 0), struct.pack("<QI", 0, 0), struct.pack("<QI", 40, 1), bytes(12)], ids=["far", "empty", "other", "zero"]
)
def test_forged_offsets_stay_inside_the_documents(index_folder: Path, encoder: WordEncoder, row: bytes) -> None:
    forge_file(index_folder, "documents.offsets", row * 5)
    with pytest.raises(IndexFolderError, match=r"documents\.jsonl: document \d was altered"):
        use_everything(index_folder, encoder)


@pytest.mark.parametrize(
    "line", [b"[1, 2]\n", b'{"id": 7, "title": "", "text": "", "metadata": {}}\n', b'{"id": "a"}\n', b"[" * 100_000, b"\xff\n", b'{"__class__": 1}\n']
)
def test_forged_documents_are_refused(tmp_path: Path, write_corpus: Callable[..., Path], encoder: WordEncoder, line: bytes) -> None:
    import zlib

    build_index([write_corpus([{"_id": "a", "text": "b"}], "one.jsonl")], tmp_path / "idx", model=encoder)
    forge_file(tmp_path / "idx", "documents.jsonl", line)
    forge_file(tmp_path / "idx", "documents.offsets", struct.pack("<QI", len(line), zlib.crc32(line)))
    with pytest.raises(IndexFolderError, match="document 1 is not one of ours"):
        use_everything(tmp_path / "idx", encoder)


def test_an_index_of_several_segments_answers_as_one(tmp_path: Path, write_corpus: Callable[..., Path], encoder: WordEncoder) -> None:
    texts = [f"bread {row} {'moon' * (row % 3)}" for row in range(60)]
    whole = write_corpus([{"_id": str(row), "text": text} for row, text in enumerate(texts)], "whole.jsonl")
    build_index([whole], tmp_path / "whole", model=encoder)
    segments: list[Segment] = []
    joined = tmp_path / "joined"
    for position, rows in enumerate([range(0, 7), range(7, 50), range(50, 60)], start=1):
        part = write_corpus([{"_id": str(row), "text": texts[row]} for row in rows], "part.jsonl")
        build_index([part], tmp_path / f"part{position}", model=encoder)
        [segment] = read_manifest(tmp_path / f"part{position}").segments
        shutil.copytree(tmp_path / f"part{position}/segments/000001", joined / f"segments/{position:06d}")
        segments.append(Segment(f"{position:06d}", segment.documents, segment.files))
    write_manifest(joined, Manifest(None, encoder.fingerprint, encoder.dimension, tuple(segments), {}))
    assert all(isinstance(record, FileRecord) for segment in verify_index(joined).segments for record in segment.files.values())
    questions = ["bread moon", "7", "bread 55 moonmoon"]
    for expected, found in zip(*(open_index(folder, model=encoder).search(questions, k=25) for folder in (tmp_path / "whole", joined)), strict=True):
        assert [hit[2:] for hit in found] == [hit[2:] for hit in expected]
        assert [hit.id for hit in found] == [hit.id for hit in expected]
