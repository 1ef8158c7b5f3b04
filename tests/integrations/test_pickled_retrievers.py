"""Retrievers of both frameworks are pickled and copied as their settings and the path of their index."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2comp_indexes import build_index
from tests.word_encoder import WORDS, WordEncoder

pytest.importorskip("llama_index.core", reason="needs the extra llama-index")
pytest.importorskip("langchain_core", reason="needs the extra langchain")

from llama_index.embeddings import llm2comp as for_llama_index

import langchain_llm2comp

COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index whose files are over 64 KiB, and so mapped into memory."""
    root = tmp_path_factory.mktemp("large")
    rows = [{"_id": f"d{row}", "text": f"{WORDS[row % 14]} {row} " * 9, "year": row} for row in range(2000)]
    (root / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_index([root / "corpus.jsonl"], root / "index", model=WordEncoder())
    return root / "index"


@pytest.mark.parametrize("make", COPIES)
def test_llama_index_retriever(folder: Path, make: Callable[[Any], Any]) -> None:
    retriever = for_llama_index.LLM2CompRetriever(folder, 3, filters="year > 50", model=WordEncoder())
    nodes = make(retriever).retrieve("bread 77")
    assert [node.node_id for node in nodes] == [node.node_id for node in retriever.retrieve("bread 77")]
    assert len(nodes) == 3


@pytest.mark.parametrize("make", [*COPIES, lambda made: made.model_copy(deep=True)])
def test_langchain_retriever(folder: Path, make: Callable[[Any], Any]) -> None:
    retriever = langchain_llm2comp.LLM2CompRetriever(folder, k=3, where="year > 50", model=WordEncoder())
    documents = make(retriever).invoke("bread 77")
    assert documents == retriever.invoke("bread 77")
    assert len(documents) == 3
    assert len(pickle.dumps(retriever)) < 2000


def test_a_copy_shares_the_model(folder: Path) -> None:
    encoder = WordEncoder()
    retriever = langchain_llm2comp.LLM2CompRetriever(folder, model=encoder)
    assert copy.deepcopy(retriever).model is encoder
