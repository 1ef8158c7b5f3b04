"""Clients of others, unmodified, over a real socket."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from llm2comp import LLM2Comp
from llm2comp_serve.batching import QueueFullError
from tests.serve.conftest import TEXTS

PLAIN = [text.replace("\n", " ") for text in TEXTS]  # LlamaIndex's classes alter white space
QUESTION = "why does bread rise?"


def test_openai(url: str, bundled: LLM2Comp) -> None:
    openai = pytest.importorskip("openai", reason="needs openai")
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        answer = client.embeddings.create(model="llm2comp-tiny", input=TEXTS)  # base64, unless it is told otherwise
        expected = bundled.encode_document(TEXTS)
        np.testing.assert_allclose([row.embedding for row in answer.data], expected, atol=1e-6)
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > len(TEXTS)
        floats = client.embeddings.create(model="llm2comp-tiny", input=TEXTS[0], encoding_format="float")
        np.testing.assert_allclose(floats.data[0].embedding, expected[0], atol=1e-6)
        short = client.embeddings.create(model="llm2comp-tiny", input=TEXTS[0], dimensions=32)
        assert len(short.data[0].embedding) == 32
        query = client.embeddings.create(model="model", input=TEXTS[0], extra_body={"input_type": "query"})
        by_name = client.embeddings.create(model="model:query", input=TEXTS[0])
        assert query.data[0].embedding == pytest.approx(by_name.data[0].embedding, abs=1e-6)
        assert [model.id for model in client.models.list()][:2] == ["llm2comp-tiny", "llm2comp-tiny:query"]
        assert client.models.retrieve("llm2comp-tiny:query").owned_by == "llm2comp"
        with pytest.raises(openai.NotFoundError, match="there is no model 'other' here"):
            client.embeddings.create(model="other", input="a")
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False") as refused:
            client.embeddings.create(model="llm2comp-tiny", input=[1, 2, 3])
        assert (refused.value.param, refused.value.code) == ("input", "token_ids")


async def test_openai_asynchronous(url: str, bundled: LLM2Comp) -> None:
    openai = pytest.importorskip("openai", reason="needs openai")
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        answer = await client.embeddings.create(model="llm2comp-tiny", input=TEXTS)
    np.testing.assert_allclose([row.embedding for row in answer.data], bundled.encode_document(TEXTS), atol=1e-6)


def test_openai_waits_and_tries_again_when_the_server_is_overloaded(app: Any, url: str) -> None:
    openai = pytest.importorskip("openai", reason="needs openai")
    [model, *_] = app.state.service.models
    submit, refused = model.batcher.submit, []

    def once(texts: Any, **options: Any) -> Any:
        if not refused:
            refused.append(texts)
            raise QueueFullError(0.1)
        return submit(texts, **options)

    model.batcher.submit = once
    try:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
            assert len(client.embeddings.create(model="llm2comp-tiny", input="a").data) == 1
    finally:
        model.batcher.submit = submit
    assert refused


async def test_langchain_openai(url: str, bundled: LLM2Comp) -> None:
    module = pytest.importorskip("langchain_openai", reason="needs langchain-openai")
    options = {"base_url": f"{url}/v1", "api_key": "none", "model": "llm2comp-tiny"}
    embeddings = module.OpenAIEmbeddings(**options, check_embedding_ctx_length=False)
    expected = bundled.encode_document(TEXTS)
    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), expected, atol=1e-6)
    np.testing.assert_allclose(await embeddings.aembed_documents(TEXTS), expected, atol=1e-6)
    await embeddings.async_client._client.close()
    np.testing.assert_allclose(embeddings.embed_query(QUESTION), bundled.encode_query(QUESTION), atol=1e-6)


async def test_openai_like_of_llama_index(url: str, bundled: LLM2Comp) -> None:
    module = pytest.importorskip(
        "llama_index.embeddings.openai_like", reason="needs llama-index-embeddings-openai-like"
    )
    embedding = module.OpenAILikeEmbedding(model_name="llm2comp-tiny", api_base=f"{url}/v1", api_key="none")
    expected = bundled.encode_document(PLAIN)
    np.testing.assert_allclose(embedding.get_text_embedding_batch(PLAIN), expected, atol=1e-6)
    np.testing.assert_allclose(await embedding.aget_text_embedding_batch(PLAIN), expected, atol=1e-6)
    await embedding._get_aclient().close()
    np.testing.assert_allclose(embedding.get_query_embedding(QUESTION), bundled.encode_query(QUESTION), atol=1e-6)


async def test_text_embeddings_inference_of_llama_index(url: str, bundled: LLM2Comp) -> None:
    module = pytest.importorskip(
        "llama_index.embeddings.text_embeddings_inference",
        reason="needs llama-index-embeddings-text-embeddings-inference",
    )
    embedding = module.TextEmbeddingsInference(model_name="llm2comp-tiny", base_url=url)
    expected = bundled.encode_document(PLAIN)
    np.testing.assert_allclose(embedding.get_text_embedding_batch(PLAIN), expected, atol=1e-6)
    np.testing.assert_allclose(await embedding.aget_text_embedding_batch(PLAIN), expected, atol=1e-6)
    np.testing.assert_allclose(embedding.get_query_embedding(QUESTION), bundled.encode_document(QUESTION), atol=1e-6)


async def test_huggingface_hub(url: str, bundled: LLM2Comp) -> None:
    from huggingface_hub import AsyncInferenceClient, InferenceClient

    with InferenceClient(url) as client:
        vectors = client.feature_extraction(TEXTS[0])
        np.testing.assert_allclose(vectors, bundled.encode_document(TEXTS[:1]), atol=1e-6)
        queries = client.feature_extraction(TEXTS[0], prompt_name="query", normalize=True, truncate=True)
        np.testing.assert_allclose(queries, bundled.encode_query(TEXTS[:1]), atol=1e-6)
        assert client.feature_extraction(TEXTS[0], dimensions=16).shape == (1, 16)
    async with AsyncInferenceClient(url) as asynchronous:
        vectors = await asynchronous.feature_extraction(TEXTS[0])
    np.testing.assert_allclose(vectors, bundled.encode_document(TEXTS[:1]), atol=1e-6)
