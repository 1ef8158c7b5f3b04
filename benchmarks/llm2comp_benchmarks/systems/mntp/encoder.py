"""An encoder without memory tokens, as LLM2Vec has it: the mean over a text's tokens, with bidirectional attention.

In all else it is a MemoryEncoder, so that stages 2 and 3 and the harness treat it like models with memory tokens.
Source: BehnamGhader et al., "LLM2Vec: Large Language Models Are Secretly Powerful Text Encoders", COLM 2024, sections 2
and 3.2: bidirectional attention, mean over the last hidden states without those of the instruction (and of the
beginning token).
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llm2comp.atomic import staged_folder, write_file
from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.hardware import choose_device, inference_dtype, storage_dtype
from llm2comp.checked_json import FieldCheck, JsonFormat, check_fields, take
from llm2comp.encoder import MemoryEncoder
from llm2comp.errors import ModelFolderError
from llm2comp.model import LLM2Comp
from llm2comp.model_folder import cast_weights, read_encoder, write_config, write_encoder
from llm2comp.model_saving import check_replaceable
from llm2comp.training.settings import ModelSettings

__all__ = ["TEXT_MEAN_FILE", "TextMeanEncoder", "TextMeanModel", "load_text_mean", "text_mean_of"]

TEXT_MEAN_FILE = "text_mean.json"
"""File that marks a folder of this module; `llm2comp.load` rejects such folders."""

_FORMAT = JsonFormat(
    "model configuration", ModelFolderError, "train the model again", version=1, version_field="format_version"
)
_ENTRIES: dict[str, FieldCheck] = {
    "query_instruction": partial(take, kind=str),
    "normalize": partial(take, kind=bool),
    "stages": partial(take, kind=list),
}
_BEGINNING_OF_TEXT = 64
"""Number of a text's characters tokenized with and without the instruction, to count the instruction's tokens."""


class TextMeanEncoder(MemoryEncoder):
    """One state per text: the mean over its tokens, without the beginning token and the instruction.

    `memory` has shape (0, hidden). For an empty text, the mean is over the beginning token and the instruction.
    """

    def __init__(self, backbone: Backbone, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> None:
        super().__init__(backbone, tokenizer, torch.zeros(0, backbone.hidden_size), max_length=max_length)
        self.memory.requires_grad_(False)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """As MemoryEncoder, with `counted` (texts, tokens): 1 for the tokens in the mean."""
        features = super().preprocess(inputs, prompt, **kwargs)
        counted = features["attention_mask"].clone()
        skipped = [1 + self._instruction_tokens(prompt, text) for text in inputs] if prompt else [1] * len(inputs)
        for row, first in enumerate(skipped):
            counted[row, :first] = 0
        nothing = counted.sum(1) == 0
        counted[nothing] = features["attention_mask"][nothing]
        return {**features, "counted": counted}

    def _states_of(self, features: dict[str, Tensor], rows: list[int]) -> Tensor:
        """Means of some texts in one pass, (texts, 1, hidden), float32."""
        mask = features["attention_mask"][rows].bool()
        tokens, counted = (features[name][rows][mask] for name in ("input_ids", "counted"))
        return self._means(tokens, mask.sum(1).tolist(), counted)[:, None]

    def _means(self, tokens: Tensor, lengths: Sequence[int], counted: Tensor) -> Tensor:
        """Means over the counted tokens of texts packed end to end, (texts, hidden), float32."""
        states = self.backbone.encode(self.backbone.embed(tokens), lengths).float()
        rows = torch.repeat_interleave(
            torch.arange(len(lengths), device=tokens.device), torch.tensor(lengths, device=tokens.device)
        )
        weights = counted.to(states.dtype)
        sums = states.new_zeros(len(lengths), states.shape[1]).index_add(0, rows, states * weights[:, None])
        return sums / weights.new_zeros(len(lengths)).index_add(0, rows, weights)[:, None]

    def _instruction_tokens(self, prompt: str, text: str) -> int:
        """Number of tokens that the instruction adds; a token that spans the border counts as the text's."""
        beginning = text[:_BEGINNING_OF_TEXT]
        with_prompt, without = self.whole_ids([prompt + beginning, beginning])
        return max(0, len(with_prompt) - len(without))


class TextMeanModel(LLM2Comp):
    """A model whose embedding is the mean over a text's tokens; it is saved for `load_text_mean`."""

    @property
    def settings(self) -> dict[str, Any]:
        """Description of the model in result files."""
        return {"system": "text-mean", "parameters": {"stages": self.stages}}

    def save(
        self,
        path: str | Path,
        *args: Any,
        weights_dtype: torch.dtype | str | None = None,
        name_wheel: bool = False,
        **kwargs: Any,
    ) -> None:
        """Writes a folder for `load_text_mean` atomically; arguments as `LLM2Comp.save`.

        Raises:
            ModelFolderError: If the path contains something else, or the folder cannot be written.
        """
        target = Path(path)
        check_replaceable(target, TEXT_MEAN_FILE, "text-mean model")
        encoder = self.encoder
        unused = torch.zeros(1, encoder.get_embedding_dimension())  # the format requires at least one memory token
        with staged_folder(target) as unfinished:
            write_encoder(
                unfinished / "encoder",
                encoder.backbone,
                encoder.tokenizer,
                unused,
                encoder.max_seq_length,
                name_wheel=name_wheel,
            )
            if weights_dtype is not None:
                cast_weights(unfinished / "encoder", storage_dtype(weights_dtype))
                write_config(unfinished / "encoder", {})
            config = {
                "format_version": _FORMAT.version,
                "query_instruction": self.prompts.get("query", ""),
                "normalize": self.normalize,
                "stages": self.stages,
            }
            write_file(unfinished / TEXT_MEAN_FILE, [json.dumps(config, indent=2), "\n"])


def text_mean_of(
    backbone: str | Path, settings: ModelSettings, *, precision: str = "auto", device: str | None = None
) -> TextMeanModel:
    """An untrained model around a causal language model.

    Args:
        backbone: Hub id or folder.
        settings: As for models with memory tokens; memory_tokens, pooling and weights are ignored.
        precision: Precision of the next stage: if an adapter is trained, the backbone may be loaded in bfloat16.
        device: None is a GPU if there is one.

    Raises:
        BackboneError, SettingsError: As `LLM2Comp.from_backbone`.
    """
    model = LLM2Comp.from_backbone(
        backbone,
        memory_tokens=1,
        adapter=settings.adapter,
        max_length=settings.max_length,
        sha256=settings.backbone_sha256,
        layers=settings.layers,
        revision=settings.revision,
        dtype="float32" if settings.adapter is None else precision,
        device=device,
    )
    encoder = TextMeanEncoder(model.encoder.backbone, model.encoder.tokenizer, max_length=settings.max_length)
    return TextMeanModel(encoder, query_instruction=settings.query_instruction, device=str(model.device))


def load_text_mean(folder: str | Path, *, device: str | None = None, dtype: str = "auto") -> TextMeanModel:
    """A model saved by `TextMeanModel.save`; arguments as `llm2comp.load`.

    Raises:
        ModelFolderError: If the folder contains no such model, or files are missing or altered.
        BackboneError: If the backbone cannot be loaded.
    """
    chosen = choose_device(device)
    config = _read_config(Path(folder))
    parts = read_encoder(Path(folder) / "encoder", dtype=inference_dtype(dtype, chosen))
    encoder = TextMeanEncoder(parts.backbone, parts.tokenizer, max_length=parts.max_length)
    model = TextMeanModel(
        encoder, query_instruction=config["query_instruction"], normalize=config["normalize"], device=chosen
    )
    model.stages = list(config["stages"])
    return model


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / TEXT_MEAN_FILE
    if not path.is_file():
        raise ModelFolderError(f"{folder} has no {TEXT_MEAN_FILE}: give a folder that the MNTP baseline wrote")
    config = _FORMAT.read(path)
    _FORMAT.check_version(config, path)
    with _FORMAT.parsing(path):
        check_fields(config, _ENTRIES)
    return config
