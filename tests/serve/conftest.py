"""One server for all tests here: the bundled model in float32 and an index of a few documents, over a real socket."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.serve.server import serving
from tests.small_indexes import build_chunks, build_hybrid, write_corpus

if TYPE_CHECKING:
    from llm2comp import LLM2Comp

ROWS: list[dict[str, Any]] = [
    {"_id": "bread", "title": "Bread", "text": "Bread rises because yeast makes gas.", "year": 2001, "lang": "en"},
    {"_id": "butter", "title": "", "text": "Butter is churned from cream.", "year": 2005, "lang": "en"},
    {
        "_id": "tides",
        "title": "Tides",
        "text": "The moon pulls the sea: tides rise and fall.",
        "year": 2010,
        "lang": "de",
    },
    {"_id": "train", "title": "Train", "text": "The train leaves at nine.", "year": 2020, "lang": "en"},
    {"_id": "primes", "title": "Primes", "text": "A prime number has two divisors.", "year": 2020, "lang": "de"},
]
TEXTS = ["Bread rises.", "Ünïcödé 🍞 and\nlines", "The train leaves at nine."]


@pytest.fixture(scope="session")
def bundled() -> "LLM2Comp":
    """The bundled model in float32, in which a vector depends only on its text; tests must not change it."""
    import llm2comp

    return llm2comp.load(device="cpu", dtype="float32", engine="torch")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), ROWS)


@pytest.fixture(scope="session")
def index_dir(corpus: Path, bundled: "LLM2Comp", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hybrid index of the corpus; tests must not change it."""
    return build_hybrid(tmp_path_factory.mktemp("indexes"), corpus, bundled)


@pytest.fixture(scope="session")
def chunk_dir(corpus: Path, bundled: "LLM2Comp", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Index of chunks of the corpus; tests must not change it."""
    return build_chunks(tmp_path_factory.mktemp("indexes"), corpus, bundled)


@pytest.fixture(scope="session")
def settings(index_dir: Path, chunk_dir: Path, saved_model: Path) -> Any:
    """Settings of the server: two models, of which the second has a query instruction, and two indexes."""
    from llm2comp_serve import ServeSettings

    return ServeSettings(
        models=("llm2comp-tiny", str(saved_model)),
        indexes={"corpus": index_dir, "chunks": chunk_dir},
        dtype="float32",
        engine="torch",
        device="cpu",
        max_texts=64,
        max_body=1 << 20,
        body_seconds=1.0,
    )


@pytest.fixture(scope="session")
def app(settings: Any) -> Any:
    from llm2comp_serve import create_app

    return create_app(settings)


@pytest.fixture(scope="session")
def url(app: Any) -> Iterator[str]:
    """Address of the server."""
    with serving(app) as address:
        yield address
