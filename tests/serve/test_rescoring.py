"""Rescoring by MaxSim on a server: the hits of the index in process, over HTTP, as a tool, and by our retrievers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from llm2comp import LLM2Comp
from llm2comp.corpus.documents import Document
from llm2comp.late_interaction import maxsim
from llm2comp_indexes import IndexOptions, SearchOptions, build_index, open_index
from llm2comp_serve import ServeSettings, create_app
from llm2comp_serve.batching import Batcher
from tests.serve.conftest import ROWS
from tests.serve.server import ask, serving

QUESTIONS = ["why does bread rise?", "when does the train leave?"]
NONE_STORED = "holds no vectors of memory tokens to rescore by"


@pytest.fixture(scope="module")
def memory_dir(corpus: Path, bundled: LLM2Comp, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory") / "memory.index"
    build_index([corpus], folder, model=bundled, options=IndexOptions(hybrid=True, memory_vectors="int8"))
    return folder


@pytest.fixture(scope="module")
def rescoring(memory_dir: Path, index_dir: Path) -> Iterator[str]:
    indexes = {"memory": memory_dir, "plain": index_dir}
    settings = ServeSettings(
        indexes=indexes, dtype="float32", engine="torch", device="cpu", writable=frozenset({"memory"})
    )
    with serving(create_app(settings)) as url:
        yield url


def by_maxsim(model: LLM2Comp, question: str) -> list[tuple[str, float]]:
    """Ids and scores of all documents, from vectors encoded here and rounded as the index stores them."""
    texts = [Document(row["_id"], row["title"], row["text"]).content for row in ROWS]
    memory = np.round(model.encode_vectors(texts).memory * 127) / 127
    [scores] = maxsim(model.encode_vectors([question], task="query").memory, memory)
    names = [row["_id"] for row in ROWS]
    return sorted(zip(names, scores.tolist(), strict=True), key=lambda pair: -pair[1])


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
def test_hits_are_those_of_the_index(rescoring: str, memory_dir: Path, bundled: LLM2Comp, mode: Any) -> None:
    options = SearchOptions(mode=mode, rescore="maxsim", candidates=4)
    expected = open_index(memory_dir, model=bundled).search(QUESTIONS, 3, options=options)
    fields = {"index": "memory", "queries": QUESTIONS, "k": 3, "mode": mode, "rescore": "maxsim", "candidates": 4}
    for hits, rows in zip(expected, ask(f"{rescoring}/v1/search", fields).json, strict=True):
        assert [row["id"] for row in rows] == [hit.id for hit in hits]
        assert [row["score"] for row in rows] == pytest.approx([hit.score for hit in hits], abs=1e-4)


def test_scores_are_sums_of_cosines(rescoring: str, bundled: LLM2Comp) -> None:
    fields = {"index": "memory", "query": QUESTIONS[0], "rescore": "maxsim"}
    found = [(row["id"], row["score"]) for row in ask(f"{rescoring}/v1/search", fields).json]
    expected = by_maxsim(bundled, QUESTIONS[0])
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-3)
    assert found[0][1] > 2, "no cosine, but a sum of eight"


def test_an_added_document_has_its_memory(rescoring: str) -> None:
    body = {"documents": [{"id": "violin", "text": "A violin has four strings."}]}
    added = ask(f"{rescoring}/v1/indexes/memory/documents", body, method="PUT")
    assert added.status == 200, added.json
    fields = {"index": "memory", "query": "how many strings has a violin?", "k": 1, "rescore": "maxsim"}
    assert ask(f"{rescoring}/v1/search", fields).json[0]["id"] == "violin"
    assert ask(f"{rescoring}/v1/indexes/memory/documents", {"ids": ["violin"]}, method="DELETE").status == 200


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"index": "plain", "rescore": "maxsim"}, NONE_STORED),
        ({"index": "memory", "candidates": 5}, "candidates go with rescore maxsim"),
        ({"index": "memory", "rescore": "maxsim", "candidates": 5, "k": 6}, "candidates is 5 and k 6"),
        ({"index": "memory", "rescore": "colbert"}, "maxsim"),
    ],
)
def test_what_cannot_be_rescored_is_refused(rescoring: str, fields: dict[str, Any], message: str) -> None:
    reply = ask(f"{rescoring}/v1/search", {"query": "a", **fields})
    assert reply.status in (400, 422)
    assert message in str(reply.json)


async def test_as_a_tool(rescoring: str, bundled: LLM2Comp) -> None:
    pytest.importorskip("mcp", reason="needs the extra serve")
    from mcp import Client

    async with Client(f"{rescoring}/mcp") as client:
        arguments = {"query": QUESTIONS[0], "index": "memory", "rescore": "maxsim"}
        found = (await client.call_tool("search", arguments)).structured_content["result"]
        assert [passage["id"] for passage in found] == [name for name, _ in by_maxsim(bundled, QUESTIONS[0])]
        failed = await client.call_tool("search", {**arguments, "index": "plain"})
        assert failed.is_error
        assert NONE_STORED in failed.content[0].text


@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
def test_by_our_retrievers(framework: str, rescoring: str, memory_dir: Path, bundled: LLM2Comp) -> None:
    options = SearchOptions(rescore="maxsim", candidates=4)
    expected = open_index(memory_dir, model=bundled).search(QUESTIONS, 3, options=options)[0]
    if framework == "langchain":
        pytest.importorskip("langchain_core", reason="needs the extra langchain")
        from langchain_llm2comp import LLM2CompRetriever

        made = LLM2CompRetriever(url=rescoring, index="memory", k=3, options=options).invoke(QUESTIONS[0])
        found = [(document.id, document.metadata["relevance_score"]) for document in made]
    else:
        pytest.importorskip("llama_index.core", reason="needs the extra llama-index")
        from llama_index.embeddings.llm2comp import LLM2CompRetriever as LlamaRetriever

        retriever = LlamaRetriever(url=rescoring, index="memory", similarity_top_k=3, options=options)
        found = [(node.node_id, node.score) for node in retriever.retrieve(QUESTIONS[0])]
    assert [name for name, _ in found] == [hit.id for hit in expected]
    assert [score for _, score in found] == pytest.approx([hit.score for hit in expected], abs=1e-4)


def test_requests_with_and_without_memory_share_a_batch() -> None:
    batches: list[int] = []

    def plain(texts: Any) -> np.ndarray:
        batches.append(-len(texts))
        return np.array([[text[0], 0] for text in texts], np.float32)

    def with_memory(texts: Any) -> np.ndarray:
        batches.append(len(texts))
        return np.array([[[text[0], 0], [text[0], 1], [text[0], 2]] for text in texts], np.float32)

    batcher = Batcher(plain, batch_tokens=100, queue_tokens=1000, encode_memory=with_memory)
    with batcher._changed:  # both are in the queue before the thread takes one
        futures = [batcher.submit([[7]], memory=True), batcher.submit([[8], [9]])]
    assert futures[0].result(30).tolist() == [[[7, 0], [7, 1], [7, 2]]]
    assert futures[1].result(30).tolist() == [[8, 0], [9, 0]]
    assert batches == [3]
    assert batcher.submit([[5]]).result(30).tolist() == [[5, 0]]
    assert batches == [3, -1]
    batcher.close()
    with pytest.raises(ValueError, match="without memory"):
        Batcher(plain, batch_tokens=100, queue_tokens=1000).submit([[1]], memory=True)
