"""Folders that earlier versions wrote go on working: opened, searched, changed, upgraded; what cannot be is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm2comp
from llm2comp.errors import CorpusError, IndexFolderError
from llm2comp_indexes import (
    SearchOptions,
    add_documents,
    build_index,
    delete_documents,
    merge_index,
    open_index,
    rebuild_index,
    sync_index,
    undo_index,
    verify_index,
)
from llm2comp_indexes import encoder as index_encoder
from llm2comp_indexes.format.manifest import read_manifest
from tests.word_encoder import WordEncoder

OLD = Path(__file__).parent / "0.1.0"
EXPECTED = json.loads((OLD / "expected.json").read_text(encoding="utf-8"))
INDEXES = ["chunked-hybrid", "hnsw"]


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(OLD / name, tmp_path / name))


def check_answers(folder: Path, name: str) -> None:
    expected, queries = EXPECTED[name], EXPECTED["queries"]
    with open_index(folder) as index:
        assert len(index) == expected["documents"]
        for hits, answers in zip(index.search(queries, k=5), expected["dense"], strict=True):
            assert [hit.id for hit in hits] == [identifier for identifier, _ in answers]
            assert [hit.score for hit in hits] == pytest.approx([score for _, score in answers], abs=1e-3)
        filtered = index.search(queries, k=5, options=SearchOptions(where="year >= 2010"))
        assert [[hit.id for hit in hits] for hits in filtered] == expected["where"]
        if "hybrid" in expected:
            fused = index.search(queries, k=5, options=SearchOptions(mode="hybrid"))
            assert [[hit.id for hit in hits] for hits in fused] == expected["hybrid"]


@pytest.mark.parametrize("name", INDEXES)
def test_an_old_index_is_whole_and_answers_as_it_did(name: str) -> None:
    verify_index(OLD / name)
    check_answers(OLD / name, name)
    assert not list((OLD / name).glob("LOCK*"))  # reading leaves nothing behind


@pytest.mark.parametrize("name", INDEXES)
def test_merge_upgrades_an_old_index(copied: Callable[[str], Path], name: str) -> None:
    folder = copied(name)
    merge_index(folder)
    verify_index(folder)
    check_answers(folder, name)


@pytest.mark.parametrize("name", INDEXES)
def test_an_old_index_takes_additions_and_deletions(copied: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    folder = copied(name)
    assert add_documents(folder, [OLD / "first.jsonl"])[:3] == ((1, 0, 23) if name == "chunked-hybrid" else (0, 0, 24))
    new = tmp_path / "new.jsonl"
    new.write_text(json.dumps({"_id": "new", "text": "Cats purr when they are content.", "year": 2024}) + "\n")
    assert add_documents(folder, [new])[:3] == (1, 0, 0)
    with open_index(folder) as index:
        assert index.search(["a cat that purrs"], k=1)[0][0].id == "new"
    assert delete_documents(folder, ["d3", "new"]).deleted == 2
    merge_index(folder)
    verify_index(folder)
    with open_index(folder) as index:
        assert len(index) == EXPECTED[name]["documents"] - (name == "hnsw")
        answers = {hit.id.partition("#")[0] for hits in index.search(EXPECTED["queries"], k=100) for hit in hits}
    assert not answers & {"d3", "new"}


def test_an_old_model_gives_the_same_vectors_and_is_saved_again(tmp_path: Path) -> None:
    expected = json.loads((OLD / "model-expected.json").read_text(encoding="utf-8"))
    for folder in (OLD / "model", tmp_path / "saved"):
        model = llm2comp.load(folder, device="cpu", dtype="float32")
        assert model.fingerprint == expected["fingerprint"]
        np.testing.assert_allclose(model.encode_document(expected["texts"]), expected["documents"], atol=1e-5)
        np.testing.assert_allclose(model.encode_query(expected["texts"]), expected["queries"], atol=1e-5)
        model.save(tmp_path / "saved")


def test_an_index_of_a_bundled_model_records_its_name(tmp_path: Path) -> None:
    for name, model in {"none": None, "name": "llm2comp-tiny", "object": llm2comp.load()}.items():
        build_index([OLD / "first.jsonl"], tmp_path / name, model=model)
        manifest = json.loads((tmp_path / name / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["model"]["name"] == "llm2comp-tiny"


def test_an_index_of_a_bundled_model_opens_with_it_whichever_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index([OLD / "first.jsonl"], tmp_path / "new")
    (tmp_path / "llm2comp-tiny").mkdir()  # a folder of the same name is not meant
    monkeypatch.chdir(tmp_path)
    load = llm2comp.load

    def load_another_by_default(name: Any = None) -> Any:
        return WordEncoder() if name is None else load(name)

    monkeypatch.setattr(index_encoder.llm2comp, "load", load_another_by_default)
    for folder in (OLD / "hnsw", tmp_path / "new"):
        with open_index(folder) as index:
            assert len(index.search(EXPECTED["queries"], k=5)[0]) == 5


def test_an_index_of_a_model_without_a_name_is_refused_in_one_line(tmp_path: Path) -> None:
    build_index([OLD / "first.jsonl"], tmp_path / "idx", model=WordEncoder())
    with open_index(tmp_path / "idx") as index, pytest.raises(IndexFolderError, match=r"--model") as caught:
        index.search(["cats"])
    assert "\n" not in str(caught.value)
    assert read_manifest(tmp_path / "idx").model is None


def test_a_manifest_of_format_1_is_refused_in_one_line(copied: Callable[[str], Path]) -> None:
    path = copied("hnsw") / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "format": 1}))
    with pytest.raises(IndexFolderError, match="build the index again") as caught:
        open_index(path.parent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", INDEXES)
def test_an_old_index_is_rebuilt_and_follows_what_is_added_now(
    copied: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    folder = copied(name)
    with pytest.raises(CorpusError, match="records no sources to compare with"):
        sync_index(folder, [OLD / "first.jsonl"])
    new = tmp_path / "new.jsonl"
    new.write_text("".join(f'{{"_id": "n{row}", "text": "bread {row}"}}\n' for row in range(4)))
    assert add_documents(folder, [new])[0] == 4
    new.write_text(new.read_text().replace("n3", "n4"))
    report = sync_index(folder, [new])
    assert (report.added, report.unchanged, report.vanished) == (1, 3, ("n3",))
    undo_index(folder)
    delete_documents(folder, [f"n{row}" for row in range(4)])
    assert rebuild_index(folder).documents == EXPECTED[name]["documents"]
    with open_index(folder) as index:
        best = [hits[0].document_id for hits in index.search(EXPECTED["queries"])]
    assert best == [answers[0][0].partition("#")[0] for answers in EXPECTED[name]["dense"]]
    verify_index(folder)
