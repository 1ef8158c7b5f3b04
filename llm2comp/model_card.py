"""The model card (README.md) of a saved model."""

import shutil
from collections.abc import Sequence
from pathlib import Path

__all__ = ["CARD_FILE", "read_card", "write_card"]

CARD_FILE = "README.md"


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
