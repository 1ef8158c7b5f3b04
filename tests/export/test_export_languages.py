"""Exports of many families of language models and kinds of tokenizers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.model import LLM2Comp
from tests.conftest import BACKBONE
from tests.export.test_export import AWKWARD
from tests.families import PACKED, PADDED, build
from tests.test_model import close

CHOSEN = {
    "mistral": "sdpa",  # a window over all layers
    "gemma3_text": "sdpa",  # windows in some layers, embeddings that are scaled
    "gemma": "sdpa",  # embeddings scaled elsewhere
    "gemma2": "eager",  # caps that only eager attention knows
    "gpt2": "sdpa",  # learned positions, and a Conv1D under the adapter
    "opt": "sdpa",  # positions counted from the mask
    "qwen2_moe": "sdpa",
    "stablelm": "eager",  # padded only, and causal where a batch has no padding
    "falcon": "sdpa",  # padded only
}
"""Attention implementation that a plain model of each family needs."""


def encoder_of(folder: Path, family: str, vocabulary: int) -> LLM2Comp:
    length = "n_positions" if family in ("gpt2", "gptj") else "max_position_embeddings"
    build(family, vocab_size=vocabulary, **{length: 128}).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = LLM2Comp.from_backbone(
            folder, 3, adapter=AdapterSettings(rank=4), max_length=60, query_instruction="find: ", device="cpu"
        )
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def check(model: LLM2Comp, folder: Path) -> str:
    """Attention implementation of the export, after comparing vectors of single texts and batches."""
    attention = model.export(folder).attention
    exported = SentenceTransformer(str(folder), device="cpu")
    expected = model.encode_query(AWKWARD)
    for batch_size in (1, 100):
        close(exported.encode_query(AWKWARD, batch_size=batch_size), expected)
    return attention


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=() if name in CHOSEN else pytest.mark.slow)
        for name in (*PACKED, *PADDED)
        if name != "bloom"
    ],
)
def test_families(family: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BACKBONE)
    tokenizer.save_pretrained(tmp_path / "backbone")
    attention = check(encoder_of(tmp_path / "backbone", family, len(tokenizer)), tmp_path / "plain")
    assert attention == CHOSEN.get(family, attention)


def lines() -> list[str]:
    return [*Path(__file__).read_text(encoding="utf-8").splitlines(), *AWKWARD]


def byte_level(*special: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(lines(), trainer)
    return tokenizer


def metaspace(*special: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    names = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        lines(), trainers.BpeTrainer(vocab_size=700, special_tokens=names, show_progress=False)
    )
    return tokenizer


def ending(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with an end token after every text, which neither encoder nor export may use."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


END = "<|endoftext|>"
TOKENIZERS: dict[str, tuple[Callable[[], Tokenizer], dict[str, str], str]] = {
    "GPTNeoXTokenizer": (
        lambda: byte_level(END, "<|padding|>"),
        {"eos_token": END, "bos_token": END, "unk_token": END},
        "gpt_neox",
    ),
    "GPT2Tokenizer": (lambda: byte_level(END), {"eos_token": END, "bos_token": END, "unk_token": END}, "gpt2"),
    "Qwen2Tokenizer": (
        lambda: byte_level(END, "<|im_start|>", "<|im_end|>"),
        {"eos_token": "<|im_end|>", "pad_token": END},
        "qwen2",
    ),
    "LlamaTokenizer": (
        lambda: ending(metaspace("<unk>", "<s>", "</s>")),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        "llama",
    ),
    "TokenizersBackend": (
        lambda: ending(metaspace("<unk>", "<s>", "</s>")),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        "llama",
    ),
    "PreTrainedTokenizerFast": (
        lambda: byte_level("<|memory_1|>", "b"),
        {},
        "llama",
    ),  # names nothing, and has the name of a memory token
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_tokenizers(kind: str, tmp_path: Path) -> None:
    make, special, family = TOKENIZERS[kind]
    tokenizer = make()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(tmp_path / "backbone")
    settings = tmp_path / "backbone" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "tokenizer_class": kind}))
    model = encoder_of(tmp_path / "backbone", family, tokenizer.get_vocab_size())
    check(model, tmp_path / "plain")
    features: dict[str, Any] = SentenceTransformer(str(tmp_path / "plain"), device="cpu").preprocess(
        [END + "</s> one", "two"]
    )
    rows = [
        row[mask.bool()].tolist() for row, mask in zip(features["input_ids"], features["attention_mask"], strict=True)
    ]
    expected = model.encoder.token_ids([END + "</s> one", "two"])
    assert [row[:-3] for row in rows] == expected
    assert rows[0][-3:] == rows[1][-3:]
    assert not set(rows[0][-3:]) & {row for ids in expected for row in ids}


def test_rows_a_vocabulary_has_to_spare_are_used(tmp_path: Path) -> None:
    """Many language models have more embeddings than their tokenizer has tokens; rows are added only where needed."""
    tokenizer = AutoTokenizer.from_pretrained(BACKBONE)
    for spare, rows in ((0, len(tokenizer) + 3), (2, len(tokenizer) + 3), (8, len(tokenizer) + 8)):
        backbone = tmp_path / f"backbone{spare}"
        tokenizer.save_pretrained(backbone)
        check(encoder_of(backbone, "llama", len(tokenizer) + spare), tmp_path / f"plain{spare}")
        assert json.loads((tmp_path / f"plain{spare}" / "config.json").read_text())["vocab_size"] == rows
