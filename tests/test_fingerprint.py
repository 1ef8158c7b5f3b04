"""A fingerprint depends on everything that determines the vectors, and on nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.model import LLM2Comp


class TestFingerprint:
    def test_of_what_does_not_matter(self, make_model: Callable[..., LLM2Comp], model: LLM2Comp) -> None:
        other = make_model()
        assert other.fingerprint == model.fingerprint
        assert len(model.fingerprint) == 64
        other.encode(["a text", "", "<s>"])
        other.encoder.tokenizer(
            "truncated",
            truncation=True,
            max_length=3,
            padding="max_length" if other.encoder.tokenizer.pad_token else False,
        )
        other.encoder.backbone.set_attention_dropout(0.2)
        other.stages.append("supervised")
        other.train()
        assert other.fingerprint == model.fingerprint

    @pytest.mark.parametrize(
        "options",
        [
            {"memory_tokens": 5},
            {"max_length": 32},
            {"query_instruction": "ask: "},
            {"pooling": {"mode": "cluster", "threshold": 0.5}},
            {"normalize": False},
            {"adapter": None},
            {"adapter": AdapterSettings(rank=4, alpha=8)},
            {"adapter": AdapterSettings(rank=4, targets=("q_proj",))},
        ],
        ids=str,
    )
    def test_of_what_matters(
        self, make_model: Callable[..., LLM2Comp], model: LLM2Comp, options: dict[str, Any]
    ) -> None:
        assert make_model(**options).fingerprint != model.fingerprint

    def test_follows_every_change(self, make_model: Callable[..., LLM2Comp]) -> None:
        model = make_model()
        seen = [model.fingerprint]

        def change(what: Callable[[], object]) -> None:
            what()
            seen.append(model.fingerprint)

        with torch.no_grad():
            change(lambda: model.encoder.memory[0].add_(1e-3))
            change(
                lambda: dict(model.named_parameters())[
                    "0.backbone.model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
                ].mul_(1.01)
            )
            change(
                lambda: dict(model.named_parameters())["0.backbone.model.base_model.model.model.embed_tokens.weight"][
                    5
                ].add_(1e-3)
            )
            change(model.encoder.backbone.merge_adapter)
        change(lambda: setattr(model, "max_seq_length", 48))
        change(lambda: model.prompts.update(query="ask: "))
        assert len(set(seen)) == len(seen)
