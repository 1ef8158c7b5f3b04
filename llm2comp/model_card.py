"""The model card (README.md) of a saved model, and the card data of a loaded one."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardData

__all__ = ["CARD_FILE", "CardData", "read_card", "write_card"]

CARD_FILE = "README.md"


class CardData(SentenceTransformerModelCardData):
    """Card data of an LLM2Comp model; mteb files results under its `model_name` and `base_model_revision`.

    The revision is the model's fingerprint, so that two models, or one model before and after training, never share
    results. Settings of SentenceTransformer that change scores are part of it, too. One that is assigned is kept.
    """

    _assigned: str | None = None

    @property
    def base_model_revision(self) -> str | None:
        """The assigned revision; by default the fingerprint, with other settings a SHA-256 of it and of them."""
        model: Any = self.model
        if self._assigned is not None or model is None:
            return self._assigned
        settings = {
            "truncate_dim": model.truncate_dim,
            "default_prompt_name": model.default_prompt_name,
            "prompts": {name: prompt for name, prompt in model.prompts.items() if prompt and name != "query"},
            "similarity": model.similarity_fn_name if model.similarity_fn_name != "cosine" else None,
        }
        changed = {name: value for name, value in settings.items() if value}
        if not changed:
            return str(model.fingerprint)
        return hashlib.sha256(f"{model.fingerprint} {json.dumps(changed, sort_keys=True)}".encode()).hexdigest()

    @base_model_revision.setter
    def base_model_revision(self, revision: str | None) -> None:
        self._assigned = revision


def read_card(folder: Path) -> str:
    """Text of the card in a model folder; empty if it has none."""
    path = folder / CARD_FILE
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def write_card(
    folder: Path, target: Path, *, backbone: str | None, memory_tokens: int, stages: Sequence[str], max_length: int
) -> None:
    """Writes a card with the model's facts, or copies the card that the target folder already has, which may say more.

    Args:
        folder: Where to write, while the model folder is unfinished.
        target: Where the model folder will be.
        backbone: Hub id of the language model; None if its weights are in the folder.
        memory_tokens: k.
        stages: Training stages, in order.
        max_length: Longest input in tokens.
    """
    previous = target / CARD_FILE
    if previous.is_file():
        shutil.copy(previous, folder / CARD_FILE)
        return
    lines = [
        "---",
        "library_name: llm2comp",
        "pipeline_tag: feature-extraction",
        "tags: [llm2comp, sentence-transformers]",
        "---",
        f"# {target.name}",
        "",
        f"A text encoder: {f'`{backbone}`' if backbone else 'the included language model'} with "
        f"{memory_tokens} memory tokens.",
        f"Stages: {', '.join(stages) or 'none (untrained)'}. Longest input: {max_length} tokens.",
        "",
        "```python",
        "import llm2comp",
        f'model = llm2comp.load("{target.name}")',
        "```",
    ]
    (folder / CARD_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
