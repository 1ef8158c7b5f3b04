"""Packages of an extra: imported, or an error with the command that installs them."""

import json.decoder
import sys
from pathlib import Path

import pytest

from llm2comp.errors import LLM2CompError
from llm2comp.optional import optional_import


def test_the_module() -> None:
    assert optional_import("json.decoder", extra="x", needed_by="a test") is json.decoder


def test_what_is_not_installed() -> None:
    with pytest.raises(
        LLM2CompError, match=r'^a test needs not_there, which is not installed: pip install "llm2comp\[x\]", or not$'
    ):
        optional_import("not_there.part", extra="x", needed_by="a test", note=", or not")


def test_what_is_installed_and_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_package.py").write_text("import part_that_is_missing\n", encoding="utf-8")
    with pytest.raises(ImportError, match=r"cannot be imported \(No module named 'part_that_is_missing'\)"):
        optional_import("broken_package", extra="x", needed_by="a test", error_type=ImportError)
    assert "broken_package" not in sys.modules
