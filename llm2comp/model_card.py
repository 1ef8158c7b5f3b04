"""The model card (README.md) of a saved model, and the card data of a loaded one."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardData
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

__all__ = ["CARD_FILE", "CardData", "SavedModel", "name_models_by_folder", "read_card", "write_card"]

CARD_FILE = "README.md"


class SavedModel(NamedTuple):
    """What a model folder says of the encoder that was loaded from it.

    Attributes:
        name: Name of the form owner/name.
        fingerprint: Of the whole model.
        state: The encoder's content state right after loading.
        settings: Settings that are part of the fingerprint and may be changed in a plain SentenceTransformer.
    """

    name: str
    fingerprint: str
    state: tuple[Any, ...]
    settings: dict[str, Any]


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
        fingerprint = model.fingerprint if hasattr(model, "fingerprint") else _plain_fingerprint(model, settings)
        changed = {name: value for name, value in settings.items() if value}
        if not changed:
            return str(fingerprint)
        return hashlib.sha256(f"{fingerprint} {json.dumps(changed, sort_keys=True)}".encode()).hexdigest()

    @base_model_revision.setter
    def base_model_revision(self, revision: str | None) -> None:
        self._assigned = revision


def _plain_fingerprint(model: SentenceTransformer, settings: dict[str, Any]) -> str:
    """Fingerprint of a plain SentenceTransformer around a saved encoder.

    Of the settings that are part of the saved fingerprint, those that were changed are added to `settings`.
    """
    encoder: Any = next(module for module in model.children() if hasattr(module, "saved_model"))
    saved: SavedModel = encoder.saved_model
    present = {"query": model.prompts.get("query") or "", "max_seq_length": encoder.max_seq_length}
    settings |= {name: str(value) + " " for name, value in present.items() if value != saved.settings[name]}
    if encoder.content_state() == saved.state:
        return saved.fingerprint
    digest = hashlib.sha256(saved.fingerprint.encode())
    for _, tensor in sorted(model.state_dict().items()):
        digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()


@cache  # once for the process: the hook cannot be removed while other threads make modules
def name_models_by_folder() -> None:
    """Gives each plain SentenceTransformer around an encoder from a model folder the folder's name and fingerprint.

    SentenceTransformer passes its modules no reference to itself, and takes no name from a folder. PyTorch, however,
    reports every module that another one gets.
    """
    register_module_module_registration_hook(_name_by_folder)


def _name_by_folder(model: nn.Module, _: str, module: nn.Module | None) -> None:
    saved = getattr(module, "saved_model", None)
    if not isinstance(saved, SavedModel) or not isinstance(model, SentenceTransformer):
        return
    data = model.model_card_data
    if type(data) is not SentenceTransformerModelCardData:
        return
    if data.model_name is None and data.base_model is None:
        named = CardData()
        vars(named).update({name: value for name, value in vars(data).items() if name != "base_model_revision"})
        named.model_name = saved.name
        model.model_card_data = named


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
