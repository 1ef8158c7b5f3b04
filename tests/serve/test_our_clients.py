"""The classes for LlamaIndex and LangChain against a server: the vectors and hits that they give in process."""

import asyncio
import copy
import json
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("llama_index.core", reason="needs the extra llama-index")
pytest.importorskip("langchain_core", reason="needs the extra langchain")

from llama_index.core.schema import QueryBundle
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters
from llama_index.embeddings import llm2comp as for_llama_index

import langchain_llm2comp as for_langchain
from llm2comp import LLM2Comp
from llm2comp.errors import ServerError, SettingsError
from llm2comp_indexes import Effort, SearchOptions, open_index
from llm2comp_serve import ServeSettings, create_app
from tests.child_process import run_python
from tests.paths import ROOT
from tests.serve.conftest import TEXTS
from tests.serve.server import free_port, serving

CLASSES = pytest.mark.parametrize("make", [for_llama_index.LLM2CompEmbedding, for_langchain.LLM2CompEmbeddings])
QUESTIONS = ["why does bread rise?", "when does the train leave?", ""]
Make = Callable[..., Any]


def _query(made: Any, text: str) -> list[float]:
    return made.embed_query(text) if hasattr(made, "embed_query") else made.get_query_embedding(text)


def _texts(made: Any, texts: list[str]) -> list[list[float]]:
    return made.embed_documents(texts) if hasattr(made, "embed_documents") else made.get_text_embedding_batch(texts)


async def _asynchronous(made: Any) -> tuple[list[float], list[list[float]]]:
    if hasattr(made, "aembed_query"):
        return await made.aembed_query(TEXTS[0]), await made.aembed_documents(TEXTS)
    return await made.aget_query_embedding(TEXTS[0]), await made.aget_text_embedding_batch(TEXTS)


@CLASSES
def test_vectors_are_those_of_the_model_in_process(make: Make, url: str, model: LLM2Comp) -> None:
    remote, local = make(base_url=url, model_name="model"), make(model=model)
    texts = [*TEXTS, "", "half a pair: \ud83d", "a\nb", "word " * 700]
    np.testing.assert_allclose(_query(remote, TEXTS[0]), _query(local, TEXTS[0]), atol=1e-6)
    np.testing.assert_allclose(_query(remote, ""), _query(local, ""), atol=1e-6)
    vectors = _texts(remote, texts)
    np.testing.assert_allclose(vectors, _texts(local, texts), atol=1e-6)
    assert {type(number) for vector in vectors for number in vector} == {float}
    assert _texts(remote, []) == []
    assert remote.fingerprint == local.fingerprint


@CLASSES
@pytest.mark.parametrize(
    "fields",
    [
        {"truncate_dim": 8},
        {"query_instruction": "", "text_instruction": "passage: "},
        {"query_instruction": "answer this:\n", "truncate_dim": 5},
    ],
)
def test_settings_have_their_effect(make: Make, url: str, model: LLM2Comp, fields: dict[str, Any]) -> None:
    remote, local = make(base_url=url, model_name="model", **fields), make(model=model, **fields)
    np.testing.assert_allclose(_query(remote, TEXTS[0]), _query(local, TEXTS[0]), atol=1e-6)
    np.testing.assert_allclose(_texts(remote, TEXTS), _texts(local, TEXTS), atol=1e-6)
    assert remote.fingerprint == local.fingerprint


@CLASSES
def test_the_asynchronous_methods_give_the_same(make: Make, url: str) -> None:
    made = make(base_url=f"{url}/v1/")
    for _ in range(2):  # another event loop each time
        query, texts = asyncio.run(_asynchronous(made))
        assert query == _query(made, TEXTS[0])
        assert texts == _texts(made, TEXTS)


@CLASSES
def test_more_texts_than_a_request_takes(make: Make, url: str, bundled: LLM2Comp) -> None:
    texts = [f"number {number}" for number in range(150)]  # the server takes 64
    made = make(base_url=url, embed_batch_size=100)
    np.testing.assert_allclose(_texts(made, texts), bundled.encode_document(texts), atol=1e-6)


@CLASSES
def test_without_a_name_it_is_the_servers_first_model(make: Make, url: str, bundled: LLM2Comp) -> None:
    made = make(base_url=url)
    assert made.model_name == "llm2comp-tiny"
    assert made.fingerprint == bundled.fingerprint
    dump = {name: value for name, value in made.model_dump().items() if name != "class_name"}
    assert make(**dump).fingerprint == made.fingerprint
    with pytest.raises(ValidationError, match="it is another one"):
        make(base_url=url, model_name="model", fingerprint=made.fingerprint)


@CLASSES
def test_many_threads_share_one_object(make: Make, url: str) -> None:
    made = make(base_url=url)
    expected = [_query(made, f"number {number}") for number in range(32)]
    with ThreadPoolExecutor(16) as pool:
        vectors = list(pool.map(lambda number: _query(made, f"number {number}"), range(32)))
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


@CLASSES
def test_copies_and_pickles_keep_the_key_and_dumps_do_not(make: Make) -> None:
    app = create_app(ServeSettings(models=("llm2comp-tiny",), dtype="float32", api_keys=("secret-key",)))
    with serving(app) as url:
        made = make(base_url=url, api_key="secret-key")
        for other in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            np.testing.assert_allclose(_query(other, "a"), _query(made, "a"), atol=1e-6)
        assert "secret-key" not in repr(made)
        assert "secret-key" not in json.dumps(made.model_dump(), default=str)
        with pytest.raises(ServerError, match=r"it wants a key: give one of its --api-key-file \(api_key=…\)"):
            make(base_url=url)
        with pytest.raises(ServerError, match="it does not know the key"):
            make(base_url=url, api_key="another")


@CLASSES
@pytest.mark.parametrize(
    ("fields", "message"),
    [({"device": "cpu"}, "device"), ({"max_length": 20}, "max_length"), ({"normalize": False}, "normalize")],
)
def test_what_the_server_decides_is_not_set_here(make: Make, url: str, fields: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=f"base_url is given together with {message}"):
        make(base_url=url, **fields)
    with pytest.raises(ValidationError, match="truncate_dim is 1000, the model's vectors have 256"):
        make(base_url=url, truncate_dim=1000)


@CLASSES
def test_errors_are_one_line_that_names_the_server(make: Make, url: str) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    for address, name, message in (
        (nobody, None, f"^{nobody} cannot be reached .*; start it with llm2comp serve, or correct the address$"),
        ("127.0.0.1:8080", None, "is no address such as http://127.0.0.1:8080"),
        (f"{url}/docs", None, "Not Found|does not answer as llm2comp serve does"),
        (url, "other", "has no model 'other'; served are: llm2comp-tiny, model$"),
    ):
        with pytest.raises(ServerError, match=message) as raised:
            make(base_url=address, **({"model_name": name} if name else {}))
        assert "\n" not in str(raised.value)


class _Answers(BaseHTTPRequestHandler):
    """Answers each request with the next of `answers`: status, headers, body; the last one again and again."""

    answers: list[tuple[int, dict[str, str], Any]]
    paths: list[str]

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        type(self).paths.append(self.path)
        answers = type(self).answers
        status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def answers() -> Iterator[tuple[str, type[_Answers]]]:
    """Address of a server that gives these answers, and the class that holds them."""
    handler = type("Handler", (_Answers,), {"answers": [], "paths": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
        server.shutdown()
        thread.join()


INFO = {
    "max_client_batch_size": 64,
    "max_input_length": 512,
    "served_models": [{"name": "m", "dimension": 1, "fingerprint": "f"}],
}
ROW = {"data": [{"embedding": "AACAPw=="}]}
BUSY = (429, {"Retry-After": "0.01"}, {"error": {"message": "too many texts are waiting for m"}})


@CLASSES
def test_an_overloaded_server_is_asked_again_when_it_says(make: Make, answers: Any) -> None:
    url, handler = answers
    handler.answers = [(503, {"Retry-After": "0.01"}, {}), (200, {}, INFO), BUSY, BUSY, (200, {}, ROW)]
    made = make(base_url=url)
    assert _query(made, "a") == [1.0]
    assert handler.paths == ["/info"] * 2 + ["/v1/embeddings"] * 3


@CLASSES
def test_in_the_end_it_is_an_error(make: Make, answers: Any) -> None:
    url, handler = answers
    handler.answers = [(200, {}, INFO), BUSY]
    made = make(base_url=url, max_retries=2)
    with pytest.raises(ServerError, match=r"too many texts are waiting for m \(tried 3 times\)$"):
        _query(made, "a")
    assert handler.paths.count("/v1/embeddings") == 3


@CLASSES
def test_another_model_under_the_same_name_is_refused(make: Make, answers: Any) -> None:
    url, handler = answers
    handler.answers = [
        (200, {}, INFO),
        (200, {"X-Model-Fingerprint": "f"}, ROW),
        (200, {"X-Model-Fingerprint": "g"}, ROW),
    ]
    made = make(base_url=url)
    assert _query(made, "a") == [1.0]
    with pytest.raises(ServerError, match="serves another model as 'm'"):
        _query(made, "a")


@CLASSES
def test_a_server_of_another_kind(make: Make, answers: Any) -> None:
    url, handler = answers
    handler.answers = [(200, {}, {"model_id": "BAAI/bge-small-en-v1.5"})]
    with pytest.raises(ServerError, match="does not answer as llm2comp serve does"):
        make(base_url=url)


@pytest.mark.parametrize("body", [None, {"data": []}, [{"id": "a", "score": 1.0, "payload": {}}]])
def test_search_of_a_server_of_another_kind(answers: Any, body: Any) -> None:
    url, handler = answers
    handler.answers = [(200, {}, body)]
    with pytest.raises(ServerError, match="does not answer as llm2comp serve does"):
        for_langchain.LLM2CompRetriever(url=url, index="a").invoke("bread")


@CLASSES
def test_texts_that_are_cut_are_said(make: Make, url: str, caplog: pytest.LogCaptureFixture) -> None:
    _texts(make(base_url=url), ["word " * 5000, "a"])
    assert "1 of 2 texts were cut to their first" in caplog.text


def test_neither_torch_nor_faiss_is_imported(url: str) -> None:
    code = """
import sys
from langchain_llm2comp import LLM2CompEmbeddings, LLM2CompRetriever
url = sys.argv[1]
print(len(LLM2CompEmbeddings(base_url=url).embed_query("a")))
print(len(LLM2CompRetriever(url=url, index="corpus").invoke("a")))
print([name for name in ("torch", "transformers", "sentence_transformers", "faiss") if name in sys.modules])
"""
    assert run_python(code, url).splitlines() == ["256", "5", "[]"]


# Retrievers


def _langchain(retriever: Any, question: str, **changes: Any) -> list[tuple[str, str, dict[str, Any]]]:
    documents = retriever.invoke(question, **changes)
    assert documents == asyncio.run(retriever.ainvoke(question, **changes))
    return [(document.id, document.page_content, document.metadata) for document in documents]


def _llama_index(retriever: Any, question: str) -> list[dict[str, Any]]:
    nodes = retriever.retrieve(question)
    assert nodes == asyncio.run(retriever.aretrieve(question))
    return [node.to_dict() for node in nodes]


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
@pytest.mark.parametrize("where", [None, 'year >= 2005 and lang in ("en", "de")'])
def test_hits_are_those_of_the_index_in_process(
    url: str, index_dir: Path, bundled: LLM2Comp, mode: Any, where: str | None
) -> None:
    options = SearchOptions(weights=(1.0, 0.25)) if where else SearchOptions(fusion="ranks")
    remote = for_langchain.LLM2CompRetriever(url=url, index="corpus", k=3, mode=mode, where=where, options=options)
    local = for_langchain.LLM2CompRetriever(index_dir, model=bundled, k=3, mode=mode, where=where, options=options)
    for question in QUESTIONS:
        assert _langchain(remote, question) == _langchain(local, question)
    changes = {"k": 1, "where": "year == 2001"}
    assert _langchain(remote, "bread", **changes) == _langchain(local, "bread", **changes)
    made = for_llama_index.LLM2CompRetriever
    remote_nodes = made(url=url, index="corpus", similarity_top_k=3, mode=mode, filters=where, options=options)
    local_nodes = made(index_dir, 3, mode, filters=where, options=options, model=bundled)
    for question in QUESTIONS:
        assert _llama_index(remote_nodes, question) == _llama_index(local_nodes, question)


def test_chunks_name_their_document(url: str, chunk_dir: Path, bundled: LLM2Comp) -> None:
    options = SearchOptions(by="document")
    remote = for_llama_index.LLM2CompRetriever(url=url, index="chunks", options=options)
    local = for_llama_index.LLM2CompRetriever(chunk_dir, model=bundled, options=options)
    assert _llama_index(remote, QUESTIONS[0]) == _llama_index(local, QUESTIONS[0])
    assert remote.retrieve(QUESTIONS[0])[0].node.ref_doc_id == "bread"


@pytest.mark.parametrize(
    "filters",
    [
        [MetadataFilter(key="year", value=2005, operator=FilterOperator.GTE)],
        [MetadataFilter(key="lang", value=["en"], operator=FilterOperator.IN)],
        [MetadataFilter(key="colour", value="red", operator=FilterOperator.NE)],  # a field that no document has
    ],
)
def test_filters_of_llama_index(url: str, index_dir: Path, bundled: LLM2Comp, filters: Any) -> None:
    given = MetadataFilters(filters=filters)
    remote = for_llama_index.LLM2CompRetriever(url=url, index="corpus", filters=given)
    local = for_llama_index.LLM2CompRetriever(index_dir, filters=given, model=bundled)
    assert _llama_index(remote, "bread") == _llama_index(local, "bread")


def test_copies_of_retrievers(url: str) -> None:
    for made, question in (
        (for_langchain.LLM2CompRetriever(url=url, index="corpus"), lambda made: _langchain(made, "bread")),
        (for_llama_index.LLM2CompRetriever(url=url, index="corpus"), lambda made: _llama_index(made, "bread")),
    ):
        for other in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert question(other) == question(made)


@pytest.mark.parametrize("make", [for_llama_index.LLM2CompRetriever, for_langchain.LLM2CompRetriever])
def test_errors_of_retrievers_show_when_they_are_made(make: Make, url: str, index_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="there is no index 'other' here; served are: corpus, chunks"):
        make(url=url, index="other")
    with pytest.raises(ServerError, match="name the index to search"):
        make(url=url)
    with pytest.raises(ServerError, match="hybrid"):
        make(url=url, index="chunks", mode="bm25")
    with pytest.raises(ServerError, match="cannot be reached"):
        make(url=f"http://127.0.0.1:{free_port()}", index="corpus")
    for settings, message in (
        ({}, "give index_dir, the folder of an index, url, the address of llm2comp serve, or store"),
        ({"index_dir": index_dir, "url": url}, "index_dir is given together with url"),
        ({"index_dir": index_dir, "index": "corpus"}, "index_dir is given together with index"),
        ({"url": url, "index": "corpus", "model": "llm2comp-tiny"}, "url is given together with model"),
        ({"url": url, "index": "corpus", "options": SearchOptions(effort=Effort(nprobe=1))}, "effort or threads"),
    ):
        with pytest.raises((SettingsError, ValidationError), match=message):
            make(**settings)


def test_filters_that_the_server_refuses(url: str) -> None:
    with pytest.raises(ServerError, match="colour"):
        for_langchain.LLM2CompRetriever(url=url, index="corpus", where="colour == 1")
    with pytest.raises(ServerError, match="colour"):
        for_llama_index.LLM2CompRetriever(url=url, index="corpus", filters="colour == 1")


def test_a_query_with_a_vector_needs_the_folder(url: str) -> None:
    retriever = for_llama_index.LLM2CompRetriever(url=url, index="corpus")
    with pytest.raises(SettingsError, match="a server cannot search by"):
        retriever.retrieve(QueryBundle("a", embedding=[0.0] * 256))


@pytest.mark.parametrize("page", ["langchain", "llamaindex"])
def test_the_lines_of_the_guides(page: str, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
    lines = block.replace("http://127.0.0.1:8080", url).replace('index="python"', 'index="corpus"')
    exec(compile(lines, f"docs/{page}.md", "exec"), {})
    assert capsys.readouterr().out.startswith("['")


def test_a_store_filled_by_a_server_is_searched_by_the_model_in_process(
    url: str, bundled: LLM2Comp, tmp_path: Path
) -> None:
    remote = for_langchain.LLM2CompEmbeddings(base_url=url)
    filled = for_langchain.LLM2CompVectorStore(tmp_path / "store.index", remote)
    filled.add_texts(["Bread rises because yeast makes gas.", "The train leaves at nine."])
    local = for_langchain.LLM2CompEmbeddings(model=bundled)
    opened = for_langchain.LLM2CompVectorStore(tmp_path / "store.index", local)
    for store in (filled, opened):
        assert store.similarity_search(QUESTIONS[1], k=1)[0].page_content == "The train leaves at nine."
    assert open_index(tmp_path / "store.index").manifest.model == "llm2comp-tiny"
