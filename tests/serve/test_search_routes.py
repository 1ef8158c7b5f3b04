"""`/v1/search` and `/v1/indexes`: the hits of the index, at its last commit, and changes where they are allowed."""

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from llm2comp import LLM2Comp, load
from llm2comp.errors import SettingsError
from llm2comp_indexes import (
    DeleteReport,
    EncoderOptions,
    IndexOptions,
    SearchOptions,
    add_documents,
    build_index,
    delete_documents,
    open_index,
)
from llm2comp_indexes.format.lock import sole_writer
from llm2comp_indexes.format.manifest import read_manifest
from llm2comp_indexes.search.lookup import find_rows
from llm2comp_serve import ServeSettings, create_app
from llm2comp_serve.metrics import Metrics
from llm2comp_serve.models import Models
from tests.serve.conftest import ROWS
from tests.serve.server import Reply, ask, serving

QUESTIONS = ["why does bread rise?", "when does the train leave?"]


def _search(url: str, **fields: Any) -> Reply:
    return ask(f"{url}/v1/search", {"index": "corpus", **fields})


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
def test_hits_are_those_of_the_index(url: str, index_dir: Path, bundled: LLM2Comp, mode: Any) -> None:
    options = SearchOptions(mode=mode)
    expected = open_index(index_dir, model=bundled).search(QUESTIONS, 3, options=options)
    found = _search(url, queries=QUESTIONS, k=3, mode=mode).json
    for hits, rows in zip(expected, found, strict=True):
        assert [row["id"] for row in rows] == [hit.id for hit in hits]
        assert [row["score"] for row in rows] == pytest.approx([hit.score for hit in hits], abs=1e-6)
        for hit, row in zip(hits, rows, strict=True):
            assert {**hit._asdict(), "score": row["score"]} == row
    assert _search(url, query=QUESTIONS[0], k=3, mode=mode).json == found[0]


def test_the_number_of_hits_and_the_filter(url: str) -> None:
    assert len(_search(url, query="a").json) == len(ROWS)
    assert len(_search(url, query="a", k=2).json) == 2
    hits = _search(url, query="bread", where='year >= 2010 and lang == "de"').json
    assert {hit["id"] for hit in hits} == {"tides", "primes"}


def test_only_the_best_chunk_of_each_document(url: str) -> None:
    rows = _search(url, index="chunks", query=QUESTIONS[0], k=3).json
    grouped = _search(url, index="chunks", query=QUESTIONS[0], k=3, group="document").json
    documents = [row["id"].rpartition("#")[0] for row in grouped]
    assert len(set(documents)) == 3
    assert grouped[0] == rows[0]


def test_weights_change_the_ranking(url: str) -> None:
    words = _search(url, query="nine", mode="hybrid", weights=[0, 1], k=1).json
    assert words[0]["id"] == "train"


def test_the_time_of_each_stage(url: str) -> None:
    timing = _search(url, query="a").headers["server-timing"]
    assert re.fullmatch(r"encode;dur=\d+\.\d\d, search;dur=\d+\.\d\d", timing)


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({}, 400, "give either query or queries"),
        ({"query": "a", "queries": ["b"]}, 400, "give either query or queries"),
        ({"query": " "}, 400, "text 0 of query is empty"),
        ({"queries": []}, 400, "at least one text"),
        ({"query": "a", "index": "other"}, 404, "there is no index 'other' here; served are: corpus, chunks"),
        ({"query": "a", "index": None}, 404, "name the index to search"),
        ({"query": "a", "index": "../corpus"}, 404, "there is no index"),
        ({"query": "a", "k": 0}, 400, "greater than or equal to 1"),
        ({"query": "a", "k": 1001}, 400, "less than or equal to 1000"),
        ({"query": "a", "where": "year >="}, 400, "year >="),
        ({"query": "a", "where": "colour == 1"}, 400, "colour"),
        ({"query": "a", "where": "(" * 5000}, 400, ""),
        ({"query": "a", "where": "year > 1" + " or year > 1" * 6000}, 400, "at most 65536 characters"),
        ({"query": "a", "mode": "lexical"}, 400, "hybrid"),
        ({"query": "a", "index": "chunks", "mode": "bm25"}, 400, "hybrid"),
        ({"query": "a", "mode": "hybrid", "weights": [0, 0]}, 400, "weights"),
        ({"query": "a", "weights": [1, 1]}, 400, "weights goes with the mode hybrid"),
        ({"query": "a", "fusion": "ranks"}, 400, "fusion goes with the mode hybrid"),
        ({"query": "a", "mode": "hybrid", "fusion": "rrf"}, 400, "fusion"),
        ({"query": "a", "group": "section"}, 400, "document"),
        ({"queries": ["a"] * 65}, 413, "at most 64"),
        ({"query": "a", "filter": "year >= 2010"}, 400, "there is no field 'filter'"),
    ],
)
def test_what_is_refused(url: str, fields: dict[str, Any], status: int, message: str) -> None:
    reply = _search(url, **fields)
    assert reply.status == status, reply.body
    assert message in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"query=a", "the body is not JSON: Expecting value at character 0"),
        (b"", "the request has no body; send JSON"),
        (b'["a"]', "the body is not a JSON object; send one, with the header Content-Type: application/json"),
        (b"{}", "give either query or queries"),
        ('{"query": "caf\xe9"}'.encode("latin-1"), "the body is not text in UTF-8; send JSON in UTF-8"),
        (b"[" * 100_000, "the body cannot be read as JSON: it is nested too deeply, or a number has too many digits"),
    ],
)
def test_bodies_that_are_no_object(url: str, body: bytes, message: str) -> None:
    reply = ask(f"{url}/v1/search", body, method="POST")
    assert (reply.status, reply.json["error"]["message"]) == (400, message)


def test_indexes_of_one_model_with_two_lengths(
    corpus: Path, index_dir: Path, bundled: LLM2Comp, tmp_path: Path
) -> None:
    short = load(device="cpu", dtype="float32", engine="torch", max_length=16)
    encoder = EncoderOptions(max_length=16, dtype="float32")
    build_index([corpus], tmp_path / "short.index", model="llm2comp-tiny", encoder=encoder)
    settings = ServeSettings(
        indexes={"short": tmp_path / "short.index", "corpus": index_dir}, dtype="float32", engine="torch", device="cpu"
    )
    text = "Bread rises because yeast makes gas, and butter is churned from cream."
    with serving(create_app(settings)) as url:
        names = [row["model"] for row in ask(f"{url}/v1/indexes").json]
        replies = [ask(f"{url}/v1/embeddings", {"input": text, "model": name}) for name in names]
        hits = [ask(f"{url}/v1/search", {"index": name, "query": text}).json for name in ("short", "corpus")]
    assert names == ["llm2comp-tiny-16", "llm2comp-tiny"]
    assert [reply.headers["x-truncated-texts"] for reply in replies] == ["1", "0"]
    for model, reply, folder, found in zip(
        (short, bundled), replies, (tmp_path / "short.index", index_dir), hits, strict=True
    ):
        np.testing.assert_allclose(reply.json["data"][0]["embedding"], model.encode_document(text), atol=1e-5)
        expected = open_index(folder, model=model).search([text], 10)[0]
        assert [row["score"] for row in found] == pytest.approx([hit.score for hit in expected], abs=1e-5)


def test_indexes_and_documents(url: str) -> None:
    first, second = ask(f"{url}/v1/indexes").json
    assert (first["name"], first["documents"], first["model"]) == ("corpus", len(ROWS), "llm2comp-tiny")
    assert first["modes"] == ["dense", "bm25", "hybrid"]
    assert second["modes"] == ["dense"]
    assert not first["writable"]
    [document] = ask(f"{url}/v1/indexes/corpus/documents/bread").json
    assert document["text"] == ROWS[0]["text"]
    assert document["metadata"] == {"year": 2001, "lang": "en"}
    chunks = ask(f"{url}/v1/indexes/chunks/documents/bread").json
    assert [chunk["id"] for chunk in chunks] == [f"bread#{place}" for place in range(1, len(chunks) + 1)]
    assert len(chunks) > 1
    assert ask(f"{url}/v1/indexes/corpus/documents/nothing").status == 404
    assert ask(f"{url}/v1/indexes/other/documents/bread").status == 404
    assert ask(f"{url}/v1/indexes/..%2f..%2fetc/documents/passwd").status == 404


def test_the_map_has_the_hits_and_a_sample(url: str) -> None:
    points = ask(f"{url}/v1/map", {"index": "corpus", "ids": ["bread", "nothing", "train"], "sample": 3}).json
    assert [title for _, _, title in points["hits"]] == ["Bread", "Train"]
    assert len(points["sample"]) == 3


@pytest.mark.parametrize(
    ("method", "body"), [("PUT", {"documents": [{"id": "new", "text": "A new text."}]}), ("DELETE", {"ids": ["bread"]})]
)
def test_nothing_is_changed_without_leave(url: str, method: str, body: Any) -> None:
    reply = ask(f"{url}/v1/indexes/corpus/documents", body, method=method)
    assert reply.status == 403
    assert "--allow-writes corpus" in reply.json["error"]["message"]
    assert ask(f"{url}/v1/indexes").json[0]["documents"] == len(ROWS)


@pytest.fixture(scope="module")
def copy(index_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(index_dir, tmp_path_factory.mktemp("writable") / "corpus.index"))


@pytest.fixture(scope="module")
def writable(copy: Path) -> Iterator[str]:
    """Address of a server whose index may be changed."""
    settings = ServeSettings(
        indexes={"corpus": copy}, dtype="float32", engine="torch", device="cpu", writable=frozenset({"corpus"})
    )
    with serving(create_app(settings)) as url:
        yield url


def test_documents_are_added_replaced_and_deleted(writable: str, copy: Path, bundled: LLM2Comp) -> None:
    documents = f"{writable}/v1/indexes/corpus/documents"
    new = {"id": "violin", "title": "Violin", "text": "A violin has four strings.", "metadata": {"year": 1999}}
    added = ask(documents, {"documents": [new]}, method="PUT")
    assert added.json == {"added": 1, "changed": 0, "unchanged": 0, "empty": 0}, added.body
    [hit] = ask(f"{writable}/v1/search", {"query": "how many strings has a violin?", "k": 1}).json
    assert (hit["id"], hit["metadata"]) == ("violin", {"year": 1999})
    assert open_index(copy, model=bundled).search(["violin strings"], 1)[0][0].id == "violin"
    changed = {**new, "text": "A violin is played with a bow."}
    assert ask(documents, {"documents": [changed]}, method="PUT").json["changed"] == 1
    assert ask(f"{documents}/violin").json[0]["text"] == changed["text"]
    gone = ask(documents, {"ids": ["violin", "nothing"]}, method="DELETE")
    assert gone.json == {"deleted": 1, "missing": ["nothing"]}
    assert ask(f"{documents}/violin").status == 404


def test_chunks_of_added_documents_are_those_of_the_model(corpus: Path, bundled: LLM2Comp, tmp_path: Path) -> None:
    text = "A violin has four strings. It is played with a bow. " * 80
    folders = [tmp_path / "served", tmp_path / "local"]
    options = IndexOptions(chunk_tokens=1000)
    for folder in folders:
        build_index([corpus], folder, model=bundled, options=options)
    settings = ServeSettings(
        indexes={"corpus": folders[0]}, dtype="float32", engine="torch", device="cpu", writable=frozenset({"corpus"})
    )
    with serving(create_app(settings)) as url:
        documents = f"{url}/v1/indexes/corpus/documents"
        reply = ask(documents, {"documents": [{"id": "violin", "text": text}]}, method="PUT")
        assert reply.status == 200, reply.body
        rows = ask(f"{documents}/violin").json
    add_documents(folders[1], [{"id": "violin", "text": text}], model=bundled)
    index = open_index(folders[1], model=bundled)
    [expected] = find_rows(index, ["violin"])
    assert [row["text"] for row in rows] == [index.fetch(row, 0.0).text for row in expected]
    assert len(rows) > 1


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("PUT", {"documents": []}),
        ("PUT", {"documents": [{"id": "", "text": "a"}]}),
        ("PUT", {"documents": [{"id": "a"}]}),
        ("PUT", {"documents": [{"id": "a", "text": "b"}, {"id": "a", "text": "c"}]}),
        ("PUT", {"documents": "corpus.jsonl"}),
        ("PUT", {"documents": [{"id": "a", "text": "b", "year": 2020}]}),
        ("DELETE", {"ids": []}),
        ("DELETE", {}),
    ],
)
def test_changes_that_are_refused_change_nothing(writable: str, method: str, body: Any) -> None:
    before = ask(f"{writable}/v1/indexes").json
    reply = ask(f"{writable}/v1/indexes/corpus/documents", body, method=method)
    assert reply.status == 400, reply.body
    assert ask(f"{writable}/v1/indexes").json == before


def test_a_commit_by_another_process_is_seen_by_the_next_request(writable: str, copy: Path, bundled: LLM2Comp) -> None:
    add_documents(copy, [{"id": "oven", "text": "An oven is hot inside."}], model=bundled)
    assert ask(f"{writable}/v1/search", {"query": "hot oven", "k": 1}).json[0]["id"] == "oven"
    delete_documents(copy, ["oven"])
    assert ask(f"{writable}/v1/search", {"query": "hot oven", "k": 1}).json[0]["id"] != "oven"


def test_an_index_that_is_moved_away_goes_on(writable: str, copy: Path) -> None:
    away = copy.rename(copy.with_name("away"))
    try:
        assert ask(f"{writable}/v1/search", {"query": "bread rises", "k": 1}).json[0]["id"] == "bread"
    finally:
        away.rename(copy)


def test_a_damaged_commit_is_said_at_every_request(writable: str, copy: Path) -> None:
    manifest = copy / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[: len(whole) // 2])
    try:
        for _ in range(2):
            reply = ask(f"{writable}/v1/search", {"query": "bread", "k": 1})
            assert reply.status == 500
            assert "manifest.json" in json.dumps(reply.json)
    finally:
        manifest.write_bytes(whole)
    assert ask(f"{writable}/v1/search", {"query": "bread rises", "k": 1}).json[0]["id"] == "bread"


def test_a_damaged_index_is_listed_and_leaves_the_others_alone(index_dir: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(index_dir, tmp_path / "damaged.index"))
    settings = ServeSettings(
        indexes={"damaged": damaged, "corpus": index_dir}, dtype="float32", engine="torch", device="cpu"
    )
    with serving(create_app(settings)) as url:
        (damaged / "manifest.json").write_text("{")
        first, second = ask(f"{url}/v1/indexes").json
        document = ask(f"{url}/v1/indexes/damaged/documents/bread")
        points = ask(f"{url}/v1/map", {"index": "damaged", "ids": ["bread"]})
        hits = ask(f"{url}/v1/search", {"index": "corpus", "query": "bread", "k": 1})
    assert (first["name"], first["documents"], second["name"]) == ("damaged", len(ROWS), "corpus")
    assert "manifest.json" in first["problem"]
    assert "problem" not in second
    for reply in (document, points):
        assert reply.status == 500
        assert "manifest.json" in reply.json["error"]["message"]
    assert hits.status == 200


def test_an_index_that_was_built_again_with_another_model(corpus: Path, index_dir: Path, tmp_path: Path) -> None:
    folders = {name: Path(shutil.copytree(index_dir, tmp_path / name)) for name in ("fewer", "other")}
    settings = ServeSettings(indexes=folders, dtype="float32", engine="torch", device="cpu")
    with serving(create_app(settings)) as url:
        for name, encoder in (
            ("fewer", EncoderOptions(truncate_dim=64, dtype="float32")),
            ("other", EncoderOptions(max_length=16, dtype="float32")),
        ):
            shutil.rmtree(folders[name])
            build_index([corpus], folders[name], model="llm2comp-tiny", encoder=encoder)
        hits = ask(f"{url}/v1/search", {"index": "fewer", "query": "bread rises", "k": 1})
        refused = ask(f"{url}/v1/search", {"index": "other", "query": "bread rises", "k": 1})
        fewer, other = ask(f"{url}/v1/indexes").json
    assert hits.json[0]["id"] == "bread"
    assert fewer["dimension"] == 64
    assert refused.status == 503
    assert "restart the server" in refused.json["error"]["message"]
    assert "restart the server" in other["problem"]


def test_changes_that_wait_for_one_another_hold_up_no_search(
    index_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(index_dir, tmp_path / "copy.index"))
    settings = ServeSettings(
        indexes={"copy": copy, "corpus": index_dir},
        dtype="float32",
        engine="torch",
        device="cpu",
        writable=frozenset({"copy"}),
    )
    finish = threading.Event()

    def wait(*_: Any, **__: Any) -> DeleteReport:
        assert finish.wait(60)
        return DeleteReport(0, ())

    monkeypatch.setattr("llm2comp_serve.indexes.delete_documents", wait)
    writers = 40  # more than the threads that requests share
    with serving(create_app(settings)) as url, ThreadPoolExecutor(writers + 1) as pool:
        try:
            body = {"ids": ["nothing"]}
            path = f"{url}/v1/indexes/copy/documents"
            changes = [pool.submit(ask, path, body, method="DELETE") for _ in range(writers)]
            time.sleep(0.5)
            search = pool.submit(ask, f"{url}/v1/indexes")
            assert wait_for([search], timeout=10).done == {search}
        finally:
            finish.set()
        assert {change.result().status for change in changes} == {200}


def test_an_index_that_another_process_writes_is_to_be_tried_again(writable: str, copy: Path) -> None:
    with sole_writer(copy):
        reply = ask(f"{writable}/v1/indexes/corpus/documents", {"ids": ["bread"]}, method="DELETE")
    assert reply.status == 503
    assert "retry-after" in reply.headers
    assert "being written" in reply.json["error"]["message"]


def test_vectors_made_elsewhere_are_not_searched_with_the_model_of_another_index(index_dir: Path) -> None:
    manifest = replace(read_manifest(index_dir), model=None, fingerprint="")
    models = Models(ServeSettings(), Metrics())
    try:
        models.load("llm2comp-tiny")
        with pytest.raises(SettingsError, match="does not say which model"):
            models.of_index(manifest, "vectors")
    finally:
        models.close()
