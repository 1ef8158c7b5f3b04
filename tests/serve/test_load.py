"""Requests that would hold up others: very long ones, ones full of errors, and broken clients beside many good ones."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from pydantic import BaseModel, ValidationError

from llm2comp import LLM2Comp
from llm2comp_benchmarks.cost.serve.endurance import Endurance, measure_endurance, memory_growth
from llm2comp_serve import ServeSettings, create_app
from llm2comp_serve.openai_routes import EmbeddingsRequest
from llm2comp_serve.search_routes import AddRequest, DeleteRequest, SearchRequest
from llm2comp_serve.tei_routes import EmbedRequest, RerankRequest, TokenizeRequest
from tests.serve.server import Reply, ask, serving

BUDGET = 1024
LONG = ["long words of a long text " * 200] * 12  # 512 tokens each, once they are cut


@pytest.fixture
def batches() -> list[int]:
    """Tokens of each batch that the model encoded."""
    return []


@pytest.fixture
def url_of_small_batches(batches: list[int]) -> Iterator[str]:
    """Address of a server with a small token budget."""
    app = create_app(
        ServeSettings(
            models=("llm2comp-tiny",), dtype="float32", engine="torch", device="cpu", batch_tokens=BUDGET, truncate=True
        )
    )
    with serving(app) as url:
        model = next(iter(app.state.service.models))
        encode = model.batcher._encode

        def counted(texts: Sequence[Sequence[int]]) -> Any:
            batches.append(sum(len(text) + model.model.memory_tokens for text in texts))
            return encode(texts)

        model.batcher._encode = counted
        yield url


def test_a_short_request_overtakes_a_long_one_that_is_cut_into_batches(
    url_of_small_batches: str, batches: list[int], bundled: LLM2Comp
) -> None:
    answers: dict[str, Reply] = {}

    def send_long() -> None:
        answers["long"] = ask(f"{url_of_small_batches}/embed", {"inputs": LONG})

    sender = threading.Thread(target=send_long)
    sender.start()
    while not batches:
        time.sleep(0.001)
    short = ask(f"{url_of_small_batches}/embed", {"inputs": "a short text"})
    assert "long" not in answers, "the short request has waited for all of the long one"
    sender.join()
    assert max(batches) <= BUDGET
    assert len(batches) >= len(LONG) * 512 // BUDGET
    np.testing.assert_allclose(short.json, bundled.encode_document(["a short text"]), atol=1e-5)
    np.testing.assert_allclose(answers["long"].json, bundled.encode_document(LONG[:1]).repeat(len(LONG), 0), atol=1e-5)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (EmbeddingsRequest, {"input": ["a"] * 5000 + [None]}),
        (EmbeddingsRequest, {"input": [None] * 5000}),
        (EmbedRequest, {"inputs": [1] * 5000}),
        (TokenizeRequest, {"inputs": [1] * 5000}),
        (RerankRequest, {"query": "a", "texts": [1] * 5000}),
        (SearchRequest, {"queries": [1] * 5000}),
        (AddRequest, {"documents": [{}] * 5000}),
        (DeleteRequest, {"ids": [1] * 5000}),
    ],
)
def test_a_list_full_of_errors_is_described_by_its_first(body: type[BaseModel], fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        body.model_validate(fields)
    assert caught.value.error_count() <= 4


def test_growth_of_memory_leaves_the_warm_up_out() -> None:
    assert memory_growth([10, 90, *[100] * 16, 110, 110]) == pytest.approx(0.1)
    assert memory_growth([10, 50, *[100] * 18]) == 0


@pytest.mark.slow
def test_no_request_is_lost_beside_broken_clients() -> None:
    record = measure_endurance(Endurance(seconds=20, clients=16, size=8, limit=60, threads=1))
    clients = record["clients"]
    assert clients["failures"] == []
    assert clients["answered"] == clients["sent"] > 0
    assert clients["wrong"] == 0
    outcomes = record["broken_clients"]
    assert outcomes["a million texts"].keys() == {"413"}
    assert outcomes["no JSON"].keys() == {"400"}
    assert outcomes["no HTTP"].keys() == {"400"}
    assert all(sum(count.values()) for count in outcomes.values())
