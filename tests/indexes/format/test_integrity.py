"""Damage and attacks: every altered byte is detected.

No content of the folder makes a reader open files elsewhere, exhaust memory or crash.
"""

import json
import os
import random
import re
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import IndexFolderError
from llm2comp_indexes import SearchOptions, add_documents, build_index, merge_index, open_index, verify_index
from tests.indexes.forging import forge, forge_file
from tests.indexes.processes import run_python
from tests.word_encoder import WordEncoder

FILES = [
    "manifest.json",
    *(
        f"segments/000001/{name}"
        for name in (
            "vectors.faiss",
            "documents.jsonl",
            "documents.offsets",
            "documents.ids",
            "metadata.arrow",
            "report.json",
        )
    ),
]
KINDS = ["HNSW8", "IVF8,SQ8"]


def files_of(folder: Path) -> list[str]:
    """Every file of the index."""
    [segment] = json.loads((folder / "manifest.json").read_text())["segments"]
    return ["manifest.json", *(f"segments/000001/{name}" for name in segment["files"])]


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def use_everything(folder: Path, encoder: WordEncoder) -> None:
    with open_index(folder, model=encoder) as index:
        index.search(["bread"], k=5)


def test_an_untouched_index_verifies(index_folder: Path) -> None:
    assert verify_index(index_folder).documents == 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_found_and_its_file_named(
    tmp_path: Path, make_full_index: Callable[..., Path], kind: str
) -> None:
    """In every file of an index with metadata, deleted rows, a structure and a BM25 index, at sampled places."""
    folder, draw = make_full_index(tmp_path / "idx", kind), random.Random(kind)
    names = files_of(folder)
    assert len(names) == 18
    for name in names:
        path = folder / name
        good = path.read_bytes()
        places = {0, len(good) - 1, *(draw.randrange(len(good)) for _ in range(100 if name == "manifest.json" else 8))}
        for place in places:
            flip(path, place, draw.randrange(8))
            with pytest.raises(IndexFolderError, match=re.escape(str(path))):
                verify_index(folder)
            path.write_bytes(good)
    verify_index(folder)


def test_white_space_of_the_manifest_counts_too(index_folder: Path) -> None:
    path = index_folder / "manifest.json"
    good = path.read_bytes()
    for place, byte in enumerate(good):
        if byte in b" \n":
            path.write_bytes(good[:place] + (b"\t" if byte == 32 else b" ") + good[place + 1 :])
            with pytest.raises(IndexFolderError, match=r"manifest\.json"):
                verify_index(index_folder)
    path.write_bytes(good)
    verify_index(index_folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_a_grown_and_a_missing_file_are_found_by_opening_too(
    tmp_path: Path, make_full_index: Callable[..., Path], encoder: WordEncoder, kind: str
) -> None:
    folder = make_full_index(tmp_path / "idx", kind)
    for name in files_of(folder):
        path = folder / name
        good = path.read_bytes()
        for content in (b"", good[: len(good) // 2], good[:-1], good[1:], good + b"\0"):
            path.write_bytes(content)
            for use in (verify_index, lambda folder: open_index(folder, model=encoder)):
                with pytest.raises(IndexFolderError, match=re.escape(path.name)):
                    use(folder)
        path.unlink()
        for use in (verify_index, open_index):
            with pytest.raises(IndexFolderError, match=re.escape(path.name)):
                use(folder)
        path.write_bytes(good)
    verify_index(folder)


def test_verify_names_every_damaged_file(tmp_path: Path, make_full_index: Callable[..., Path]) -> None:
    folder = make_full_index(tmp_path / "idx")
    names = files_of(folder)[1:]
    for name in names[:-2]:
        flip(folder / name, 7)
    (folder / names[-2]).write_bytes(b"")
    (folder / names[-1]).unlink()
    with pytest.raises(IndexFolderError) as failure:
        verify_index(folder)
    assert all(str(folder / name) in str(failure.value) for name in names)
    assert str(failure.value).count("; ") >= len(names) - 1


@pytest.mark.parametrize("name", [name for name in FILES if "vectors" not in name])
def test_a_flipped_byte_is_found_before_an_answer_where_it_could_change_more_than_a_score(
    index_folder: Path, encoder: WordEncoder, name: str
) -> None:
    """All bytes are valid vectors, which opening an index does not read; everything else is compared before use."""
    path = index_folder / name
    good = path.read_bytes()
    for position in {*range(0, len(good), 11), len(good) - 1}:
        flip(path, position)
        refusal = ""
        try:
            with open_index(index_folder, model=encoder) as index:
                hits = index.search(["bread"], k=5, options=SearchOptions(where="year >= 2000"))[0]
                rows = index.segments[0].find_rows([f"d{row}" for row in range(5)])
        except IndexFolderError as error:
            refusal = str(error)
        if refusal:
            assert path.name in refusal
        else:
            assert name.endswith(("manifest.json", "documents.ids")), (
                f"byte {position} of {name} was altered, and nobody noticed"
            )
            assert len(hits) == 5
            assert all(matches in ([row], []) for row, matches in enumerate(rows)), (
                "an id is found where it is, or not at all"
            )
        path.write_bytes(good)
    use_everything(index_folder, encoder)


@pytest.mark.parametrize(
    "name", ["vectors.faiss", "documents.jsonl", "documents.ids", "documents.offsets", "deleted-000002"]
)
def test_a_writer_does_not_build_on_damaged_files(
    tmp_path: Path, make_full_index: Callable[..., Path], encoder: WordEncoder, name: str
) -> None:
    """Else the damage would get a new checksum, and verification could not find it."""
    folder = make_full_index(tmp_path / "idx")
    path = folder / "segments" / "000001" / name
    flip(
        path, path.read_bytes().index(b" n78") if name == "documents.jsonl" else -3
    )  # the document 78, which is not deleted
    changes: list[Callable[[], object]] = [lambda: merge_index(folder)]
    if name != "vectors.faiss":
        corpus = tmp_path / "corpus.jsonl"
        corpus.write_text('{"_id": "d78", "text": "other"}\n')
        changes.append(lambda: add_documents(folder, [corpus], model=encoder))
    for change in changes:
        with pytest.raises(IndexFolderError, match=name):
            change()
    with pytest.raises(IndexFolderError, match=name):
        verify_index(folder)


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match="no such index folder; build one with: llm2comp index build"):
        open_index(tmp_path / "missing")
    with pytest.raises(IndexFolderError, match=r"holds no index \(no manifest.json\)"):
        open_index(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexFolderError, match="file: a file, expected the folder of an index"):
        open_index(tmp_path / "file")


def test_a_newer_format_is_refused_in_words(index_folder: Path) -> None:
    forge(index_folder, lambda manifest: manifest.update(format=3, something_new=1))
    with pytest.raises(
        IndexFolderError,
        match="index manifest of format 3, this llm2comp reads up to 2: pip install --upgrade llm2comp",
    ):
        open_index(index_folder)


def test_the_first_format_is_refused_in_words(index_folder: Path) -> None:
    forge(index_folder, lambda manifest: manifest.update(format=1))
    with pytest.raises(
        IndexFolderError,
        match="index manifest of format 1, this llm2comp reads 2; build the index again in a new folder",
    ):
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
    "parent file": lambda m: segment(m)["files"].update({"../../../secret": segment(m)["files"].pop("metadata.arrow")}),
    "file in a parent of the BM25 index": lambda m: segment(m)["files"].update(
        {"bm25/../../../secret": {"bytes": 1, "sha256": ""}}
    ),
    "file below the BM25 index": lambda m: segment(m)["files"].update({"bm25/a/b": {"bytes": 1, "sha256": ""}}),
    "hidden file": lambda m: segment(m)["files"].update({"bm25/.hidden": {"bytes": 1, "sha256": ""}}),
    "bitmap elsewhere": lambda m: segment(m)["files"].update({"deleted-000001/../x": {"bytes": 1, "sha256": ""}}),
    "fewer files": lambda m: segment(m)["files"].pop("documents.offsets"),
    "huge count": lambda m: segment(m).update(rows=10**15),
    "plausible huge count": lambda m: segment(m).update(rows=10**9),
    "huge number": lambda m: segment(m).update(rows=10**4000),
    "no rows": lambda m: segment(m).update(rows=0),
    "negative count": lambda m: segment(m).update(rows=-5),
    "count as text": lambda m: segment(m).update(rows="5"),
    "count as truth": lambda m: segment(m).update(rows=True),
    "count as fraction": lambda m: segment(m).update(rows=5.0),
    "more documents than rows": lambda m: (segment(m).update(documents=6), m.update(documents=6)),
    "more deleted than rows": lambda m: segment(m).update(deleted=6),
    "deleted without a bitmap": lambda m: segment(m).update(deleted=1),
    "a bitmap without deleted": lambda m: segment(m)["files"].update({"deleted-000001": {"bytes": 1, "sha256": ""}}),
    "wrong sum": lambda m: m.update(documents=6),
    "huge dimension": lambda m: m.update(dimension=2**31),
    "other dimension": lambda m: m.update(dimension=64),
    "no dimension": lambda m: m.pop("dimension"),
    "huge file": lambda m: segment(m)["files"]["vectors.faiss"].update(bytes=2**61),
    "file of another size": lambda m: segment(m)["files"]["documents.ids"].update(bytes=61),
    "no segments": lambda m: m.update(segments={}),
    "the same segment twice": lambda m: m.update(segments=m["segments"] * 2, documents=10),
    "segment as text": lambda m: m.update(segments=["000001"]),
    "other metric": lambda m: m.update(metric="l2"),
    "type without its file": lambda m: segment(m).update(type="HNSW32"),
    "file without its type": lambda m: segment(m)["files"].update({"index.faiss": {"bytes": 1, "sha256": ""}}),
    "type as a list": lambda m: segment(m).update(type=["Flat"]),
    "no model": lambda m: m.update(model=None),
    "model of another type": lambda m: m["model"].update(name=["pickle"]),
    "fingerprint of another type": lambda m: m["model"].update(fingerprint=None),
    "commit before the first": lambda m: m.update(commit=0),
    "huge commit": lambda m: m.update(commit=2**70),
    "other store": lambda m: m["options"].update(store="float8"),
    "unknown option": lambda m: m["options"].update(colour="red"),
    "missing option": lambda m: m["options"].pop("hybrid"),
    "option of another type": lambda m: m["options"].update(hybrid="yes"),
    "overlapping chunks": lambda m: m["options"].update(chunk_tokens=4, chunk_overlap=9),
    "unknown wish": lambda m: m["options"]["wishes"].update(price=1),
    "impossible wish": lambda m: m["options"]["wishes"].update(recall=2.0),
    "wish that is no number": lambda m: m["options"]["wishes"].update(recall=float("nan")),
    "no format": lambda m: m.pop("format"),
    "format as text": lambda m: m.update(format="2"),
    "no checksum that fits": lambda m: m.update(created_by=None),
}


@pytest.mark.parametrize("change", FORGERIES.values(), ids=FORGERIES.keys())
def test_forged_manifests_are_refused_before_any_file_is_read(
    index_folder: Path, change: Callable[[dict[str, Any]], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    forge(index_folder, change)
    monkeypatch.setattr(
        "llm2comp_indexes.format.manifest.check_size", lambda path, record: pytest.fail(f"looked at {path}")
    )
    monkeypatch.setattr(
        "llm2comp_indexes.format.verify.check_content", lambda path, record: pytest.fail(f"looked at {path}")
    )
    for use in (open_index, verify_index):
        with pytest.raises(IndexFolderError, match="manifest"):
            use(index_folder)


def test_a_manifest_that_was_not_signed_anew_is_refused(index_folder: Path) -> None:
    path = index_folder / "manifest.json"
    path.write_text(path.read_text().replace('"fingerprint": "words-32"', '"fingerprint": "wordz-32"'))
    with pytest.raises(IndexFolderError, match="its content does not match its checksum"):
        open_index(index_folder)


@pytest.mark.parametrize(
    "kind",
    [
        "HNSW9",
        "HNSW64",
        "IVF99999999,Flat",
        "IVF8,PQ16x12",
        "PQ32x24",
        "IMI2x20,Flat",
        "LSH",
        "Flat",
        "",
        "../x",
        "x" * 100_000,
    ],
)
def test_a_type_that_the_structure_is_not_is_refused(
    tmp_path: Path, make_full_index: Callable[..., Path], kind: str
) -> None:
    folder = make_full_index(tmp_path / "idx")
    forge(folder, lambda manifest: segment(manifest).update(type=kind))
    with pytest.raises(IndexFolderError, match="build the index again") as failure:
        open_index(folder)
    assert len(str(failure.value)) < 1000


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        '{"format": 2}',
        "{" * 100_000,
        "[" * 100_000,
        '{"format": ' + "9" * 5000 + "}",
        "\x00",
        '{"format": NaN}',
        '{"a": ' * 90_000,
    ],
    ids=range(10),
)
def test_a_manifest_that_is_none_is_refused(index_folder: Path, content: str) -> None:
    (index_folder / "manifest.json").write_text(content)
    for use in (open_index, verify_index):
        with pytest.raises(IndexFolderError, match=r"manifest\.json"):
            use(index_folder)


def test_a_giant_manifest_is_not_read(index_folder: Path) -> None:
    with (index_folder / "manifest.json").open("wb") as file:
        file.truncate(1 << 40)
    for use in (open_index, verify_index):
        with pytest.raises(IndexFolderError, match="larger than"):
            use(index_folder)


def test_links_and_devices_are_refused_in_place_of_every_file_and_folder(
    tmp_path: Path, make_full_index: Callable[..., Path]
) -> None:
    folder, elsewhere = make_full_index(tmp_path / "idx"), tmp_path / "elsewhere"
    for name in [*files_of(folder), "segments", "segments/000001", "segments/000001/bm25"]:
        path = folder / name
        impostors: list[Callable[[Path], object]] = [lambda path: path.symlink_to(elsewhere)]
        impostors += [os.mkfifo, Path.mkdir] if path.is_file() else []
        shutil.move(path, elsewhere)
        for make in impostors:
            make(path)
            for use in (open_index, verify_index):
                with pytest.raises(IndexFolderError, match=re.escape(path.name)):
                    use(folder)
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
        shutil.move(elsewhere, path)
    verify_index(folder)


def flat_file(kind: bytes = b"IxFI", dimension: int = 32, count: int = 5, metric: int = 0, floats: int = 160) -> bytes:
    return struct.pack("<4siqqqBiQ", kind, dimension, count, 1 << 20, 1 << 20, 1, metric, floats) + bytes(4 * 160)


def test_the_forged_file_would_pass_if_it_were_right(index_folder: Path, encoder: WordEncoder) -> None:
    forge_file(index_folder, "vectors.faiss", flat_file())
    assert [hit.score for hit in open_index(index_folder, model=encoder).search(["bread"])[0]] == [0.0] * 5


@pytest.mark.parametrize(
    "change",
    [
        {"kind": b"IHNf"},
        {"kind": b"IxF2"},
        {"count": 6},
        {"count": 2**40},
        {"dimension": 64},
        {"floats": 2**60},
        {"floats": 0},
        {"metric": 1},
    ],
    ids=str,
)
def test_a_crafted_faiss_file_never_reaches_faiss(
    index_folder: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    forge_file(index_folder, "vectors.faiss", flat_file(**change))
    monkeypatch.setattr("faiss.read_index", lambda *_: pytest.fail("read a crafted file"))
    with pytest.raises(
        IndexFolderError, match=r"vectors\.faiss: its header is not that of 5 vectors of dimension 32 stored as float32"
    ):
        open_index(index_folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"ARROW1\0\0",
        b"ARROW1\0\0" + b"\xff" * 64 + b"ARROW1",
        b"PAR1" * 100,
        b"ARROW1\0\0" + bytes(400) + b"ARROW1",
    ],
    ids=range(5),
)
def test_a_crafted_arrow_file_is_refused_when_it_is_used(
    index_folder: Path, encoder: WordEncoder, content: bytes
) -> None:
    forge_file(index_folder, "metadata.arrow", content)
    with pytest.raises(IndexFolderError, match=r"metadata\.arrow: .*build the index again"):
        open_index(index_folder, model=encoder).search(["bread"], options=SearchOptions(where="year > 2000"))


@pytest.mark.parametrize(
    "row",
    [struct.pack("<QI", 2**63, 0), struct.pack("<QI", 0, 0), struct.pack("<QI", 40, 1), bytes(12)],
    ids=["far", "empty", "other", "zero"],
)
def test_forged_offsets_stay_inside_the_documents(index_folder: Path, encoder: WordEncoder, row: bytes) -> None:
    forge_file(index_folder, "documents.offsets", row * 5)
    with pytest.raises(IndexFolderError, match=r"documents\.jsonl: document \d was altered"):
        use_everything(index_folder, encoder)


@pytest.mark.parametrize(
    "line",
    [
        b"[1, 2]\n",
        b'{"id": 7, "title": "", "text": "", "metadata": {}}\n',
        b'{"id": "a"}\n',
        b"[" * 100_000,
        b"\xff\n",
        b'{"__class__": 1}\n',
    ],
)
def test_forged_documents_are_refused(
    tmp_path: Path, write_corpus: Callable[..., Path], encoder: WordEncoder, line: bytes
) -> None:
    build_index([write_corpus([{"_id": "a", "text": "b"}], "one.jsonl")], tmp_path / "idx", model=encoder)
    forge_file(tmp_path / "idx", "documents.jsonl", line)
    forge_file(tmp_path / "idx", "documents.offsets", struct.pack("<QI", len(line), zlib.crc32(line)))
    with pytest.raises(IndexFolderError, match="document 1 is not one that this package wrote"):
        use_everything(tmp_path / "idx", encoder)


def fuzz(folder: Path, count: int, seed: int) -> None:
    """Damages the index in a separate process; see `tests.indexes.fuzz`."""
    lines = run_python("-m", "tests.indexes.fuzz", folder, count, seed).splitlines()
    assert re.fullmatch(r"done: \d+ refused", lines[-1])
    assert len(lines) > count


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bounds memory by setrlimit and /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_forged_files_neither_crash_nor_fill_the_memory(
    tmp_path: Path, make_full_index: Callable[..., Path], kind: str
) -> None:
    fuzz(make_full_index(tmp_path / "idx", kind), 80, seed=1)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bounds memory by setrlimit and /proc")
@pytest.mark.parametrize("kind", [*KINDS, "flat"])
def test_thousands_of_forged_files_neither_crash_nor_fill_the_memory(
    tmp_path: Path, make_full_index: Callable[..., Path], kind: str
) -> None:
    fuzz(make_full_index(tmp_path / "idx", kind), 2000, seed=2)


def test_an_index_of_several_segments_answers_as_one(
    tmp_path: Path, write_corpus: Callable[..., Path], encoder: WordEncoder
) -> None:
    texts = [f"bread {row} {'moon' * (row % 3)}" for row in range(60)]
    whole = write_corpus([{"_id": str(row), "text": text} for row, text in enumerate(texts)], "whole.jsonl")
    build_index([whole], tmp_path / "whole", model=encoder)
    for position, rows in enumerate([range(0, 7), range(7, 50), range(50, 60)]):
        part = write_corpus([{"_id": str(row), "text": texts[row]} for row in rows], "part.jsonl")
        if position:
            add_documents(tmp_path / "joined", [part], model=encoder)
        else:
            build_index([part], tmp_path / "joined", model=encoder)
    assert [segment.rows for segment in verify_index(tmp_path / "joined").segments] == [7, 43, 10]
    questions = ["bread moon", "7", "bread 55 moonmoon"]
    for expected, found in zip(
        *(
            open_index(folder, model=encoder).search(questions, k=25)
            for folder in (tmp_path / "whole", tmp_path / "joined")
        ),
        strict=True,
    ):
        assert found == expected
