"""`llm2comp export` as a user runs it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


def test_a_model_folder(llm2comp_command: Command, saved_model: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    import llm2comp
    from tests.test_model import TEXTS, close

    out = tmp_path / "plain"
    done = llm2comp_command("export", saved_model, out)
    assert done.code == 0
    first, second, third = done.out.splitlines()
    assert first.startswith(f"{out}: a plain sentence-transformers model, float32, ")
    assert "same tokens, vectors equal to " in second
    assert "special-token strings" in third
    expected = llm2comp.load(saved_model, device="cpu", dtype="float32").encode_query(TEXTS)
    close(SentenceTransformer(str(out), device="cpu").encode_query(TEXTS), expected)

    again = llm2comp_command("export", saved_model, out)
    assert (again.code, again.out) == (1, "")
    assert again.err == f"llm2comp: error: {out} is there already and not empty; give a new folder\n"


def test_the_bundled_model_in_half_the_size(llm2comp_command: Command, tmp_path: Path) -> None:
    done = llm2comp_command("export", "llm2comp-tiny", tmp_path / "plain", "--dtype", "bfloat16")
    assert done.code == 0
    assert "cosine 0.99" in done.out
    assert "before rounding" in done.out
    assert "WARNING" not in done.err
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["dtype"] == "bfloat16"


def test_what_cannot_be_exported_is_one_line(
    llm2comp_command: Command, make_model: Callable[..., Any], tmp_path: Path
) -> None:
    make_model(pooling={"mode": "cluster", "threshold": 0.9}).save(tmp_path / "clustering")
    for model, message in (
        (tmp_path / "clustering", "the pooling is {'mode': 'cluster'"),
        ("nowhere", "no model at 'nowhere'"),
    ):
        done = llm2comp_command("export", model, tmp_path / "out")
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
        assert message in done.err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [[], ["llm2comp-tiny"], ["llm2comp-tiny", "out", "--dtype", "int8"]])
def test_wrong_usage_is_2(llm2comp_command: Command, arguments: list[str]) -> None:
    assert llm2comp_command("export", *arguments).code == 2
