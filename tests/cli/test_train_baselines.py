"""`llm2comp train mntp` and `llm2comp bench ablation`: what the method is compared with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.tiny import BACKBONE, text, write_corpus, write_pairs

Command = Callable[..., Any]
FEW = ("--set", "steps=2", "--set", "batch_size=4", "--set", "precision=float32")
pytestmark = pytest.mark.usefixtures("propagating_reports")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus.jsonl", [text(number, 80) for number in range(12)])


def test_mntp_and_the_stages_after_it(llm2comp_command: Command, corpus: Path, tmp_path: Path) -> None:
    few = ("--set", "steps=2", "--set", "batch_size=4")
    arguments = ("-o", tmp_path / "1", "-c", corpus, *few, "--rank", 2, "--max-length", 64)
    first = llm2comp_command("train", "mntp", BACKBONE, *arguments, "--set", "mask_share=0.5")
    assert first.code == 0, first.err
    model, pairs = tmp_path / "1" / "model", write_pairs(tmp_path / "pairs.jsonl", 12)
    second = llm2comp_command("train", "supervised", model, "-o", tmp_path / "2", "-p", pairs, *few)
    assert second.code == 0, second.err
    assert json.loads((tmp_path / "2" / "model" / "text_mean.json").read_text())["stages"] == ["mntp", "supervised"]


def test_mntp_takes_layers_and_the_precision_of_its_weights(
    llm2comp_command: Command, corpus: Path, tmp_path: Path
) -> None:
    shape = ("--rank", 0, "--layers", 1, "--max-length", 64, "--weights", "bfloat16")
    short = ("--set", "max_tokens=40", "--set", "min_characters=100")
    first = llm2comp_command("train", "mntp", BACKBONE, "-o", tmp_path / "1", "-c", corpus, *shape, *short, *FEW)
    assert first.code == 0, first.err
    pairs = write_pairs(tmp_path / "pairs.jsonl", 12)
    command = ("train", "supervised", tmp_path / "1" / "model", "-o", tmp_path / "2", "-p", pairs, *FEW)
    second = llm2comp_command(*command, "--weights", "bfloat16")
    assert second.code == 0, second.err
    for folder in "12":
        (file,) = (tmp_path / folder / "model").rglob("backbone/*.safetensors")
        weights = load_file(file)
        assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
        assert not [name for name in weights if ".layers.1." in name]


def test_the_ablation_is_a_command(llm2comp_command: Command, tmp_path: Path) -> None:
    arguments = ("-o", tmp_path / "a", "--results", tmp_path / "b", "--data", tmp_path)
    ran = llm2comp_command("bench", "ablation", "tiny", *arguments)
    assert (ran.code, "pretrain.corpora[0]: no file or folder" in ran.err) == (1, True)
    ran = llm2comp_command("bench", "ablation", "tiny", *arguments, "--pretexts", "mlm")
    assert "pretexts mlm: the plan has distillation, continuation" in ran.err
    ran = llm2comp_command("bench", "ablation", "huge", *arguments)
    assert "no ablation 'huge'" in ran.err
