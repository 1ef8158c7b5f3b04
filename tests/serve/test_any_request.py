"""Requests made from the server's own description, right and wrong ones: none of them makes it fail."""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("schemathesis", reason="needs schemathesis")

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm2comp_serve import ServeSettings, create_app
from tests.serve.server import ask, serving


@pytest.fixture(scope="module")
def open_server(index_dir: Path, chunk_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server that lets anybody do everything."""
    folder = tmp_path_factory.mktemp("any")
    copies = {"corpus": shutil.copytree(index_dir, folder / "a"), "chunks": shutil.copytree(chunk_dir, folder / "b")}
    options = ServeSettings(
        indexes={name: Path(copy) for name, copy in copies.items()},
        dtype="float32",
        engine="torch",
        device="cpu",
        max_texts=64,
        body_seconds=5.0,
        writable=frozenset(copies),
    )
    with serving(create_app(options)) as url:
        yield url


def _aimed(document: dict[str, Any]) -> dict[str, Any]:
    """The description with names that the server knows, which no chance would find."""
    schemas = document["components"]["schemas"]
    indexes = {"enum": ["corpus", "chunks"]}
    for name in ("SearchRequest", "MapRequest"):
        schemas[name]["properties"]["index"] = indexes
        schemas[name]["required"] = [*schemas[name].get("required", []), "index"]
    search = schemas["SearchRequest"]
    search["properties"] |= {"query": {"type": "string"}, "queries": {"type": "null"}}
    search["required"].append("query")
    filters = ["year >= 2005", 'lang in ("en", "de") and not year == 1', "year >=", "colour == 1", "year > 'a'", ""]
    search["properties"]["where"] = {"anyOf": [{"enum": filters}, {"type": "string"}]}
    schemas["EmbeddingsRequest"]["properties"]["model"] = {"enum": ["llm2comp-tiny", "llm2comp-tiny:query"]}
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] == "name" and operation["summary"] != "Model":
                    parameter["schema"] = indexes
    return document


def _send(url: str, examples: int) -> Counter[tuple[str, str, int]]:
    """Number of answers by method, path and status."""
    schema = schemathesis.openapi.from_dict(_aimed(ask(f"{url}/openapi.json").json))
    schema.config.update(base_url=url)
    operations = [result.ok() for result in schema.get_all_operations()]
    modes = list(schemathesis.GenerationMode)
    cases = st.sampled_from([operation.as_strategy(generation_mode=mode) for operation in operations for mode in modes])
    answers: Counter[tuple[str, str, int]] = Counter()
    failures: list[str] = []

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.data())
    def send(data: Any) -> None:
        case = data.draw(data.draw(cases))
        response = case.call()
        answers[case.operation.method.upper(), case.operation.path, response.status_code] += 1
        if response.status_code >= 500:
            failures.append(f"{response.status_code} {case.as_curl_command()}")

    send()
    assert not failures, failures[:5]
    return answers


def test_no_request_makes_it_fail(open_server: str) -> None:
    answers = _send(open_server, 200)
    reached = {path for _, path, status in answers if status == 200}
    # which of them chance reaches depends on what else hypothesis has seen
    assert len({"/v1/embeddings", "/embed", "/tokenize", "/v1/search", "/v1/map"} & reached) >= 2
    assert ask(f"{open_server}/v1/search", {"index": "corpus", "query": "bread", "k": 1}).status == 200


@pytest.mark.slow
def test_nor_do_thousands(open_server: str) -> None:
    _send(open_server, 5000)
    assert ask(f"{open_server}/v1/search", {"index": "corpus", "query": "bread", "k": 1}).status == 200
