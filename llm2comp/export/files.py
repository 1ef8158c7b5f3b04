"""The files of a plain sentence-transformers model that computes what an LLM2Comp model computes.

The adapter is merged into the weights, the k memory vectors become rows of the vocabulary, the tokenizer appends them
to every text, and the modules pool only them.
"""

import json
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import sentence_transformers
import torch
import transformers
from peft import PeftModel
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, WordWeights
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import PreTrainedModel

from llm2comp.backbone.forward import NO_WINDOW, WINDOWS, decoder
from llm2comp.backbone.loading import quiet
from llm2comp.encoder import MemoryEncoder
from llm2comp.errors import BackboneError
from llm2comp.model_folder import cast_weights

if TYPE_CHECKING:
    from llm2comp.model import LLM2Comp

__all__ = [
    "Attention",
    "Vocabulary",
    "check_exportable",
    "round_weights",
    "write_backbone",
    "write_modules",
    "write_tokenizer",
]

Attention = Literal["sdpa", "eager"]
"""Attention of transformers' own classes."""


class Vocabulary(NamedTuple):
    """A tokenizer that appends the memory tokens, and what the embeddings need for it.

    Attributes:
        tokenizer: The tokenizer.
        names: Names of the memory tokens.
        ids: Their token ids.
        rows: Rows that the input embeddings need at least.
    """

    tokenizer: Tokenizer
    names: list[str]
    ids: list[int]
    rows: int


def check_exportable(encoder: MemoryEncoder) -> None:
    """Refuses models that transformers could not load from a folder without other code.

    Raises:
        BackboneError: If the language model's class is not transformers', or its tokenizer is not of the tokenizers
            library.
    """
    model = encoder.backbone.language_model
    if not type(model).__module__.startswith("transformers."):
        raise BackboneError(
            f"{type(model).__name__} is code that comes with its weights; a plain model can only be of a class that "
            "transformers has"
        )
    if not isinstance(getattr(encoder.tokenizer, "backend_tokenizer", None), Tokenizer):
        raise BackboneError(
            f"{type(encoder.tokenizer).__name__} is no tokenizer of the tokenizers library, so it cannot be made to "
            "append memory tokens"
        )


def write_backbone(folder: Path, encoder: MemoryEncoder, vocabulary: Vocabulary) -> None:
    """Writes the language model without its head, bidirectional by its configuration.

    The adapter is merged, and the memory vectors are rows of the input embeddings. The model in memory is copied and
    does not change.
    """
    model = deepcopy(encoder.backbone.model)
    if isinstance(model, PeftModel):
        model = model.merge_and_unload(safe_merge=True)
    plain = decoder(model)
    assert isinstance(plain, PreTrainedModel)
    _place_memory(plain, encoder.memory.detach(), vocabulary)
    config: Any = plain.config
    config.is_causal = False
    for name in WINDOWS:
        if getattr(config, name, None) is not None:
            setattr(config, name, NO_WINDOW)
    if hasattr(config, "auto_map"):
        del config.auto_map  # names code that a plain model does not need
    with quiet():
        plain.save_pretrained(folder)


def _place_memory(model: PreTrainedModel, memory: Tensor, vocabulary: Vocabulary) -> None:
    """Puts the memory vectors, (k, hidden), into rows of the input embeddings, adding rows where needed."""
    embeddings: Any = model.get_input_embeddings()
    weight = embeddings.weight.data
    sample = torch.arange(min(len(weight), 1024), device=weight.device)
    # Gemma's embeddings multiply their rows
    scale = (embeddings(sample) * weight[sample]).sum() / (weight[sample] ** 2).sum()
    rows = weight.new_zeros(max(len(weight), vocabulary.rows), weight.shape[1])
    rows[: len(weight)] = weight
    rows[vocabulary.ids] = memory.to(weight) / scale
    embeddings.weight = nn.Parameter(rows, requires_grad=False)
    embeddings.num_embeddings = len(rows)
    model.config.get_text_config().vocab_size = len(rows)


def write_tokenizer(folder: Path, encoder: MemoryEncoder) -> Vocabulary:
    """Writes a tokenizer whose output is the beginning token, the text, cut to leave room, and the memory tokens.

    Special-token strings inside a text stay text, by an option (`split_special_tokens`) that transformers reads;
    programs that read `tokenizer.json` by themselves do not know it.
    """
    source = encoder.tokenizer
    tokenizer = Tokenizer.from_str(source.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    special = {
        name: token
        for name, token in source.special_tokens_map.items()
        if name in ("bos_token", "eos_token", "unk_token", "pad_token")
    }
    names = _free_names(tokenizer, encoder.memory_tokens + 1)
    padding, names = names[-1], names[:-1]
    for name in ("pad_token", "eos_token", "bos_token"):
        if _row(tokenizer, special.get(name, "")) < encoder.backbone.vocabulary_size:
            padding = special[name]
            break
    added = [*names, padding]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in added])
    ids = [_row(tokenizer, name) for name in names]
    tokenizer.post_processor = TemplateProcessing(
        single="beginning $A memory",
        special_tokens=[
            {
                "id": "beginning",
                "ids": [encoder.beginning],
                "tokens": [tokenizer.id_to_token(encoder.beginning) or "beginning"],
            },
            {"id": "memory", "ids": ids, "tokens": names},
        ],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        **special,
        "pad_token": padding,
        "tokenizer_class": "TokenizersBackend",  # any other would replace the post-processor by its own
        "backend": "tokenizers",
        "model_max_length": encoder.max_seq_length,
        "split_special_tokens": True,
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
    }
    _write_json(folder / "tokenizer_config.json", settings)
    return Vocabulary(tokenizer, names, ids, rows=max(_row(tokenizer, name) for name in added) + 1)


def _free_names(tokenizer: Tokenizer, count: int) -> list[str]:
    """Names for memory tokens that no token has yet."""
    stem = "memory"
    while any(tokenizer.token_to_id(f"<|{stem}_{number}|>") is not None for number in range(count)):
        stem += "_"
    return [f"<|{stem}_{number}|>" for number in range(count)]


def _row(tokenizer: Tokenizer, token: str) -> int:
    row = tokenizer.token_to_id(token)
    return 2**31 if row is None else row


def write_modules(folder: Path, vocabulary: Vocabulary, model: "LLM2Comp", attention: Attention) -> None:
    """Writes the files of sentence-transformers: the modules, their settings, and the model's prompts.

    `eager` attention is written into the settings; sdpa is transformers' default.
    """
    tokenizer = vocabulary.tokenizer
    names = [
        tokenizer.id_to_token(row) or f"<|unused_{row}|>" for row in range(max(tokenizer.get_vocab().values()) + 1)
    ]
    with quiet():
        modules: list[Any] = [
            WordWeights(names, dict.fromkeys(vocabulary.names, 1.0), unknown_word_weight=0.0),
            Pooling(model.encoder.get_embedding_dimension(), pooling_mode="mean"),
        ]
    modules = [*_whitening_of_tokens(model), *modules, *([Normalize()] if model.normalize else [])]
    entries = [{"idx": 0, "name": "0", "path": "", "type": _path(Transformer)}]
    for number, module in enumerate(modules, start=1):
        path = f"{number}_{type(module).__name__}"
        (folder / path).mkdir(exist_ok=True)
        module.save(str(folder / path))
        entries.append({"idx": number, "name": str(number), "path": path, "type": _path(type(module))})
    _write_json(folder / "modules.json", entries)
    transformer = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
        "unpad_inputs": False,  # WordWeights reads padded batches only
        **({"model_kwargs": {"attn_implementation": attention}} if attention == "eager" else {}),
    }
    _write_json(folder / "sentence_bert_config.json", transformer)
    versions = {
        "sentence_transformers": sentence_transformers.__version__,
        "transformers": transformers.__version__,
        "pytorch": torch.__version__,
    }
    settings = {
        "model_type": "SentenceTransformer",
        "prompts": model.prompts,
        "default_prompt_name": None,
        "similarity_fn_name": model.similarity_fn_name,
    }
    _write_json(folder / "config_sentence_transformers.json", {**settings, "__version__": versions})


def _whitening_of_tokens(model: "LLM2Comp") -> list[nn.Module]:
    """The whitening, if the model has one, as a module in front of the pooling, with which it commutes.

    Behind WordWeights, whose result is float32, a map in bfloat16 would fail.
    """
    if model.whitening is None:
        return []
    weight = model.whitening.linear.weight.detach()
    place = "token_embeddings"
    return [Dense(weight.shape[1], weight.shape[0], False, nn.Identity(), weight, module_input_name=place)]


def round_weights(folder: Path, dtype: torch.dtype) -> None:
    """Rewrites the weights in another precision, and records it in the configuration."""
    cast_weights(folder, dtype)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _write_json(folder / "config.json", {**config, "dtype": str(dtype).removeprefix("torch.")})


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__name__}"


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
