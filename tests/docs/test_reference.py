"""The pages of docs/api name every public name, and no other."""

import importlib
import re

import pytest

from tests.docs.pages import DOCS

OLDER_NAMES = {"Wishes", "__version__"}


@pytest.mark.parametrize(
    ("page", "package"),
    [
        ("core", "llm2comp"),
        ("indexes", "llm2comp_indexes"),
        ("analysis", "llm2comp.analysis"),
        ("benchmarks", "llm2comp_benchmarks"),
        ("llamaindex", "llama_index.embeddings.llm2comp"),
        ("langchain", "langchain_llm2comp"),
        ("serve", "llm2comp_serve"),
    ],
)
def test_every_public_name_has_an_entry(page: str, package: str) -> None:
    try:
        module = importlib.import_module(package)
    except ImportError:
        pytest.skip(f"{package} needs its extra")
    shown = re.findall(r"^::: ([\w.]+)$", (DOCS / "api" / f"{page}.md").read_text(encoding="utf-8"), re.M)
    assert {name.rpartition(".")[2] for name in shown} >= set(module.__all__) - OLDER_NAMES
    for name in shown:
        parent, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(parent), attribute), name
