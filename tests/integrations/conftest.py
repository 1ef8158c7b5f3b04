"""The bundled model, loaded once, a small corpus and indexes of it; tests here cannot open a connection."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_socket

from tests.small_indexes import build_chunks, build_hybrid, write_corpus

if TYPE_CHECKING:
    from llm2comp import LLM2Comp

ROWS: list[dict[str, Any]] = [
    {
        "_id": "bread",
        "title": "Bread",
        "text": "Bread rises because yeast makes gas.\nThe oven sets it.",
        "year": 2001,
        "lang": "en",
        "tags": ["food"],
    },
    {
        "_id": "butter",
        "title": "",
        "text": "Butter is churned from cream.",
        "year": 2005,
        "lang": "en",
        "tags": ["food", "milk"],
        "draft": True,
    },
    {
        "_id": "tides",
        "title": "Tides",
        "text": "The moon pulls the sea, and so the tides rise and fall.",
        "year": 2010,
        "lang": "de",
        "tags": ["sea"],
    },
    {
        "_id": "harbour",
        "title": "Harbour",
        "text": "Ships wait in the harbour until the water is high.",
        "year": 2012,
        "lang": "fr",
        "tags": ["sea", "travel"],
    },
    {
        "_id": "train",
        "title": "Train",
        "text": "The train leaves at nine, and children travel free.",
        "year": 2020,
        "lang": "en",
        "tags": ["travel"],
        "draft": False,
    },
    {
        "_id": "primes",
        "title": "Primes",
        "text": "A prime number has two divisors.",
        "year": 2020,
        "lang": "de",
        "note": "with 'quotes' and \"more\"",
    },
    {"_id": "root", "title": "Root", "text": "The square root of nine is three.", "lang": "en", "tags": []},
    {"_id": "violin", "title": "Violin", "text": "A violin has four strings.", "year": 1999, "note": ""},
]
QUESTIONS = ("why does bread rise?", "when does the train leave?", "what do I multiply by itself to get nine?")


@pytest.fixture(autouse=True)
def _no_sockets() -> Iterator[None]:
    pytest_socket.disable_socket(allow_unix_socket=True)  # event loops use a pair of unix sockets to wake up
    yield
    pytest_socket.enable_socket()


@pytest.fixture(scope="session")
def bundled() -> "LLM2Comp":
    """The bundled model in float32, in which a vector depends only on its text; tests must not change it."""
    import llm2comp

    return llm2comp.load(device="cpu", dtype="float32")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Inputs of each call of `LLM2Comp.encode`, in their order."""
    from llm2comp import LLM2Comp

    calls: list[Any] = []
    encode = LLM2Comp.encode

    def record(self: LLM2Comp, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(inputs)
        return encode(self, inputs, *args, **kwargs)

    monkeypatch.setattr(LLM2Comp, "encode", record)
    return calls


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), ROWS)


@pytest.fixture(scope="session")
def index_dir(corpus: Path, bundled: "LLM2Comp", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hybrid index of the corpus, built with the bundled model; tests must not change it."""
    return build_hybrid(tmp_path_factory.mktemp("indexes"), corpus, bundled)


@pytest.fixture(scope="session")
def chunk_dir(corpus: Path, bundled: "LLM2Comp", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Index of chunks of the corpus; tests must not change it."""
    return build_chunks(tmp_path_factory.mktemp("indexes"), corpus, bundled)
