"""The routes of text-embeddings-inference, with its status codes and the shape of its errors."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from llm2comp import LLM2Comp
from tests.serve.conftest import TEXTS
from tests.serve.server import ask


@pytest.mark.parametrize("path", ["/embed", "/"])
def test_vectors_are_those_of_the_model(url: str, bundled: LLM2Comp, path: str) -> None:
    expected = bundled.encode_document(TEXTS)
    np.testing.assert_allclose(ask(url + path, {"inputs": TEXTS}).json, expected, atol=1e-6)
    np.testing.assert_allclose(ask(url + path, {"inputs": TEXTS[0]}).json, expected[:1], atol=1e-6)
    queries = ask(url + path, {"inputs": TEXTS, "prompt_name": "query"}).json
    np.testing.assert_allclose(queries, bundled.encode_query(TEXTS), atol=1e-6)


def test_fewer_dimensions(url: str) -> None:
    vectors = np.array(ask(f"{url}/embed", {"inputs": TEXTS, "dimensions": 16}).json)
    assert vectors.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/embed", {"inputs": ["a"] * 65}, 413, "at most 64"),
        ("/embed", {"inputs": "word " * 5000, "truncate": False}, 413, "1 of 1 texts have more than the"),
        ("/embed", {"inputs": "word " * 5000, "truncation_direction": "Left"}, 422, "cut them yourself"),
        (
            "/rerank",
            {"query": "a", "texts": ["word " * 5000], "truncation_direction": "left"},
            422,
            "cut them yourself",
        ),
        ("/tokenize", {"inputs": ["word " * 50_000, "word " * 50_000]}, 413, "at most 262,144"),
        ("/embed", {"inputs": []}, 400, "at least one text"),
        ("/embed", {"inputs": ""}, 400, "text 0 of inputs is empty"),
        ("/embed", {"inputs": 7}, 422, "expected a text or a list of texts"),
        ("/embed", {}, 422, "inputs: Field required"),
        ("/", {}, 422, "inputs: Field required"),
        ("/embed", {"inputs": "a", "normalize": False}, 422, "leave normalize out"),
        ("/embed", {"inputs": "a", "prompt_name": "passage"}, 422, "expected query or document"),
        ("/embed", {"inputs": "a", "dimensions": 1000}, 422, "expected 1 to 256"),
        ("/rerank", {"query": "a", "texts": []}, 400, "texts is empty"),
        ("/rerank", {"query": "", "texts": ["a"]}, 400, "query is empty"),
        ("/tokenize", {"inputs": ["a"] * 65}, 413, "at most 64"),
    ],
)
def test_what_is_refused(url: str, path: str, body: Any, status: int, message: str) -> None:
    reply = ask(url + path, body)
    assert reply.status == status, reply.body
    assert message in reply.json["error"]
    assert reply.json["error_type"] == {400: "Empty", 413: "Validation", 422: "Tokenizer"}[status]


def test_tokens_have_their_places_in_the_text(url: str, bundled: LLM2Comp) -> None:
    [tokens] = ask(f"{url}/tokenize", {"inputs": TEXTS[1]}).json
    assert [token["id"] for token in tokens] == bundled.encoder.token_ids([TEXTS[1]])[0]
    first, *rest = tokens
    assert first["special"]
    assert first["start"] is None
    assert rest[0]["start"] == 0
    assert rest[-1]["stop"] == len(TEXTS[1])
    for token in rest:
        assert token["text"] == TEXTS[1][token["start"] : token["stop"]]
        assert not token["special"]
    assert ask(f"{url}/tokenize", {"inputs": TEXTS[1], "add_special_tokens": False}).json == [rest]


def test_tokens_of_half_a_surrogate_pair(url: str) -> None:
    [tokens] = ask(f"{url}/tokenize", {"inputs": "a\ud800b", "add_special_tokens": False}).json
    assert tokens == ask(f"{url}/tokenize", {"inputs": "a\ufffdb", "add_special_tokens": False}).json[0]


def test_texts_that_were_cut_are_counted(url: str) -> None:
    long = "word " * 5000
    embedded = ask(f"{url}/embed", {"inputs": [long, "a"]})
    ranked = ask(f"{url}/rerank", {"query": long, "texts": [long, "a"]})
    short = ask(f"{url}/embed", {"inputs": "a", "truncation_direction": "Left"})
    assert [reply.headers["x-truncated-texts"] for reply in (embedded, ranked, short)] == ["1", "2", "0"]


def test_special_words_in_a_text_are_text(url: str, bundled: LLM2Comp) -> None:
    text = f"{bundled.encoder.tokenizer.convert_ids_to_tokens(bundled.encoder.beginning)} a"
    [tokens] = ask(f"{url}/tokenize", {"inputs": text, "add_special_tokens": False}).json
    assert bundled.encoder.beginning not in [token["id"] for token in tokens]


def test_rerank_puts_the_most_similar_text_first(url: str, bundled: LLM2Comp) -> None:
    texts = ["The moon pulls the sea.", "Bread rises because yeast makes gas.", "A violin has four strings."]
    ranks = ask(f"{url}/rerank", {"query": "why does bread rise?", "texts": texts, "return_text": True}).json
    expected = bundled.encode_document(texts) @ bundled.encode_query(["why does bread rise?"])[0]
    assert [rank["index"] for rank in ranks] == np.argsort(-expected).tolist()
    assert ranks[0]["text"] == texts[1]
    np.testing.assert_allclose([rank["score"] for rank in ranks], np.sort(expected)[::-1], atol=1e-6)


def test_info_names_the_model_and_the_limits(url: str, bundled: LLM2Comp) -> None:
    info = ask(f"{url}/info").json
    assert info["model_id"] == "llm2comp-tiny"
    assert info["model_sha"] == bundled.fingerprint
    assert info["model_dtype"] == "float32"
    assert info["max_client_batch_size"] == 64
    first, second = info["served_models"]
    assert first == {"name": "llm2comp-tiny", "dimension": 256, "fingerprint": bundled.fingerprint}
    assert second["name"] == "model"
