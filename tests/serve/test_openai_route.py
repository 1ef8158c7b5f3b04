"""`/v1/embeddings` and `/v1/models`: what OpenAI's clients send and expect."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from llm2comp import LLM2Comp
from llm2comp_serve import ServeSettings, create_app
from tests.serve.conftest import TEXTS
from tests.serve.server import Reply, ask, serving


def _post(url: str, given: Any, **fields: Any) -> Reply:
    return ask(f"{url}/v1/embeddings", {"input": given, "model": "llm2comp-tiny", **fields})


def _vectors(reply: Reply) -> np.ndarray:
    assert reply.status == 200, reply.body
    assert [row["index"] for row in reply.json["data"]] == list(range(len(reply.json["data"])))
    return np.array([row["embedding"] for row in reply.json["data"]], dtype=np.float32)


def test_vectors_of_documents_are_those_of_the_model(url: str, bundled: LLM2Comp) -> None:
    np.testing.assert_allclose(_vectors(_post(url, TEXTS)), bundled.encode_document(TEXTS), atol=1e-6)
    np.testing.assert_allclose(_vectors(_post(url, TEXTS[0])), bundled.encode_document(TEXTS[:1]), atol=1e-6)


@pytest.mark.parametrize("fields", [{"input_type": "query", "model": "model"}, {"model": "model:query"}])
def test_queries_get_the_models_instruction(url: str, model: LLM2Comp, fields: dict[str, str]) -> None:
    expected = model.encode_query(TEXTS)
    assert np.abs(expected - model.encode_document(TEXTS)).max() > 0.001
    np.testing.assert_allclose(_vectors(_post(url, TEXTS, **fields)), expected, atol=1e-6)


def test_input_type_wins_over_the_name(url: str, model: LLM2Comp) -> None:
    vectors = _vectors(_post(url, TEXTS, model="model:query", input_type="document"))
    np.testing.assert_allclose(vectors, model.encode_document(TEXTS), atol=1e-6)


def test_half_a_surrogate_pair_is_a_text(url: str, bundled: LLM2Comp) -> None:
    np.testing.assert_allclose(_vectors(_post(url, ["\ud800"])), bundled.encode_document(["\ud800"]), atol=1e-6)
    reply = ask(f"{url}/rerank", {"query": "a", "texts": ["\ud800"], "return_text": True})
    assert reply.json[0]["text"] == "\ud800"


def test_base64_holds_the_same_floats(url: str) -> None:
    rows = _post(url, TEXTS, encoding_format="base64").json["data"]
    decoded = np.stack([np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in rows])
    np.testing.assert_array_equal(decoded, _vectors(_post(url, TEXTS)))


def test_fewer_dimensions_have_unit_length_again(url: str, bundled: LLM2Comp) -> None:
    vectors = _vectors(_post(url, TEXTS, dimensions=64))
    first = bundled.encode_document(TEXTS)[:, :64]
    np.testing.assert_allclose(vectors, first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-6)


def test_usage_counts_tokens_and_truncation_is_said(url: str, bundled: LLM2Comp) -> None:
    reply = _post(url, [TEXTS[0], "word " * 5000])
    tokens = sum(map(len, bundled.encoder.token_ids([TEXTS[0], "word " * 5000])))
    assert reply.json["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert reply.headers["x-truncated-texts"] == "1"
    assert _post(url, TEXTS).headers["x-truncated-texts"] == "0"


def test_an_answer_names_the_model_that_made_it(url: str, bundled: LLM2Comp, model: LLM2Comp) -> None:
    assert _post(url, "a").headers["x-model-fingerprint"] == bundled.fingerprint
    assert _post(url, "a", model="model").headers["x-model-fingerprint"] == model.fingerprint


def test_an_instruction_that_leaves_no_room_for_a_text(url: str) -> None:
    reply = _post(url, TEXTS, instruction="word " * 2000)
    assert reply.status == 400
    assert "instruction takes all of the" in reply.json["error"]["message"]
    assert reply.json["error"]["param"] == "instruction"


def test_an_instruction_replaces_the_models(url: str, model: LLM2Comp) -> None:
    vectors = _vectors(_post(url, TEXTS, model="model:query", instruction="answer: "))
    np.testing.assert_allclose(vectors, model.encode_query(TEXTS, prompt="answer: "), atol=1e-6)


def test_an_empty_text_has_a_vector_where_that_is_asked_for(url: str, bundled: LLM2Comp) -> None:
    vectors = _vectors(_post(url, ["", "a"], allow_empty=True))
    np.testing.assert_allclose(vectors, bundled.encode_document(["", "a"]), atol=1e-6)


def test_models_are_listed_with_their_names_for_queries(url: str) -> None:
    listed = ask(f"{url}/v1/models").json
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["llm2comp-tiny", "llm2comp-tiny:query", "model", "model:query"]
    assert ask(f"{url}/v1/models/llm2comp-tiny:query").json["object"] == "model"
    assert ask(f"{url}/v1/models/other").status == 404


@pytest.mark.parametrize(
    ("given", "fields", "status", "message", "parameter"),
    [
        ([1, 2, 3], {}, 400, "check_embedding_ctx_length=False", "input"),
        ([[1, 2], [3]], {}, 400, "check_embedding_ctx_length=False", "input"),
        ([], {}, 400, "at least one text", "input"),
        (["a", ""], {}, 400, "text 1 of input is empty", "input"),
        ("", {}, 400, "text 0 of input is empty", "input"),
        (["a"] * 65, {}, 413, "at most 64 are taken", "input"),
        ("a", {"model": "other"}, 404, "there is no model 'other' here; served are: llm2comp-tiny, model", "model"),
        ("a", {"dimensions": 257}, 400, "dimensions is 257, expected 1 to 256", "dimensions"),
        ("a", {"dimensions": 0}, 400, "greater than or equal to 1", "dimensions"),
        ("a", {"encoding_format": "int8"}, 400, "base64", "encoding_format"),
        ("a", {"input_type": "passage"}, 400, "query", "input_type"),
        ("word " * 5000, {"truncate": False}, 413, "1 of 1 texts have more than the", None),
        ({"text": "a"}, {}, 400, "expected a text or a list of texts", None),
        ([1.5], {}, 400, "", None),
        (None, {}, 400, "", None),
    ],
)
def test_what_is_refused_says_so_in_openais_shape(
    url: str, given: Any, fields: dict[str, Any], status: int, message: str, parameter: str | None
) -> None:
    reply = _post(url, given, **fields)
    assert reply.status == status, reply.body
    error = reply.json["error"]
    assert message in error["message"]
    assert "\n" not in error["message"]
    assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")
    if parameter:
        assert error["param"] == parameter


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff\xfe", b'{"model": "llm2comp-tiny"}', b"null", b"[" * 100_000]
)
def test_bodies_that_are_no_request(url: str, body: bytes) -> None:
    reply = ask(f"{url}/v1/embeddings", body)
    assert reply.status == 400
    assert reply.json["error"]["message"]


def test_a_model_of_two_names_is_loaded_once_and_answers_to_both(bundled: LLM2Comp, tmp_path: Path) -> None:
    bundled.save_pretrained(str(tmp_path / "twin"))
    models = ("llm2comp-tiny", str(tmp_path / "twin"))
    app = create_app(ServeSettings(models=models, dtype="float32", engine="torch", device="cpu"))
    with serving(app) as url:
        listed = [row["id"] for row in ask(f"{url}/v1/models").json["data"]]
        vectors = [_vectors(_post(url, TEXTS, model=name)) for name in ("llm2comp-tiny", "twin")]
    assert listed == ["llm2comp-tiny", "llm2comp-tiny:query", "twin", "twin:query"]
    assert len(list(app.state.service.models)) == 1
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
