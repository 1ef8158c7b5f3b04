"""Public names of the adapters; without its framework, importing an adapter names the command that installs it."""

import subprocess
import sys
from importlib import import_module

import pytest

FOR_LLAMA_INDEX = ["LLM2CompEmbedding", "LLM2CompRetriever", "LLM2CompSynthesizer", "LLM2CompVectorStore"]
FOR_LANGCHAIN = ["LLM2CompAnswerer", "LLM2CompEmbeddings", "LLM2CompRetriever", "LLM2CompVectorStore"]


@pytest.mark.parametrize(
    ("adapter", "framework", "command"),
    [
        ("llama_index.embeddings.llm2comp", "llama_index.core", 'pip install "llm2comp[llama-index]"'),
        ("langchain_llm2comp", "langchain_core", 'pip install "llm2comp[langchain]"'),
    ],
)
def test_the_error_names_the_command(adapter: str, framework: str, command: str) -> None:
    script = f"import sys; sys.modules[{framework!r}] = None; sys.path[:0] = {sys.path!r}; import {adapter}"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert last.endswith(command)


@pytest.mark.parametrize(
    ("adapter", "framework", "names"),
    [
        ("llama_index.embeddings.llm2comp", "llama_index.core", FOR_LLAMA_INDEX),
        ("langchain_llm2comp", "langchain_core", FOR_LANGCHAIN),
    ],
)
def test_names(adapter: str, framework: str, names: list[str]) -> None:
    pytest.importorskip(framework, reason="needs the framework's extra")
    module = import_module(adapter)
    assert module.__all__ == names
    for name in names:
        assert getattr(module, name).__doc__
