"""Without its framework, importing an adapter says which command installs it."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("adapter", "framework", "command"),
    [
        ("llama_index.embeddings.llm2comp", "llama_index.core", "pip install 'llm2comp[llama-index]'"),
        ("langchain_llm2comp", "langchain_core", "pip install 'llm2comp[langchain]'"),
    ],
)
def test_the_error_names_the_command(adapter: str, framework: str, command: str) -> None:
    script = f"import sys; sys.modules[{framework!r}] = None; sys.path[:0] = {sys.path!r}; import {adapter}"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert last.endswith(command)
