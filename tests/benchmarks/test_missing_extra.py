"""Without the extra `eval` there is one clear error, before a model works for hours."""

import sys
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import LLM2CompError
from llm2comp_benchmarks import evaluate, read_beir


def test_the_error_names_the_command(fruit: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytrec_eval", None)
    with pytest.raises(LLM2CompError, match=r'pip install "llm2comp\[eval\]"'):
        evaluate(encoder, read_beir(fruit))
    assert not encoder.queries
