"""`llm2comp train whitening`: a new folder with the same weights, and one line for what goes wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llm2comp
from tests.training.tiny import text, write_corpus

TEXTS = [text(number, 8) for number in range(200)]


def test_a_folder_with_the_same_weights(
    llm2comp_command: Callable[..., Any], saved_model: Path, tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", TEXTS)
    target = tmp_path / "white"
    command = ("train", "whitening", saved_model, "-c", corpus, "-o", target, "--power", "0.5", "--texts", "150")
    assert llm2comp_command(*command).out == f"{target}\n"
    before, after = (json.loads((folder / "llm2comp.json").read_text())["files"] for folder in (saved_model, target))
    added = {name for name in after if before.get(name) != after[name]}
    assert added == {"2_Dense/config.json", "2_Dense/model.safetensors", "3_Normalize/config.json", "modules.json"}
    assert llm2comp.load(target).fingerprint != llm2comp.load(saved_model).fingerprint
    assert "whitening" in (target / "README.md").read_text()


def test_mistakes(llm2comp_command: Callable[..., Any], saved_model: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", TEXTS[:30])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    for arguments, named in (
        (("-o", tmp_path / "new"), "whitening is fitted to texts: give corpora or pairs"),
        (("-c", tmp_path / "gone", "-o", tmp_path / "new"), f"no file or folder '{tmp_path / 'gone'}'"),
        (("-c", corpus, "-o", tmp_path / "new"), "at least 64 texts, better to 320, and there are 30"),
        (("-c", corpus, "-o", tmp_path / "notes"), "notes exists and holds no llm2comp model"),
    ):
        run = llm2comp_command("train", "whitening", saved_model, *arguments)
        assert run.code in (1, 2)
        assert named in run.err
        assert not (tmp_path / "new").exists()
