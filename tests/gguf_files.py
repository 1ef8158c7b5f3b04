"""A Llama of two layers, its GGUF file of eight bits as llama.cpp's converter writes it, and a wheel with the file."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

gguf: Any = pytest.importorskip("gguf", reason="the package gguf is not installed: pip install gguf")

HEADS, HIDDEN, WIDTH, LAYERS = 2, 32, 64, 2
TOKENS = ["<s>", "</s>", "<unk>", *(chr(code) for code in range(ord("!"), ord("~"))), "Ġ", "ab"]


def tiny_llama() -> LlamaForCausalLM:
    """The model that the files hold, with weights that eight bits hold well."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=HIDDEN,
        intermediate_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.2)
    return model


def write(path: Path, family: str, *, weights: dict[str, Tensor] | None = None, causal: bool | None = None) -> None:
    """Writes a file as llama.cpp's converter does; without weights it holds one small tensor."""
    writer = gguf.GGUFWriter(path, family)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(TOKENS))
    if causal is not None:
        writer.add_causal_attention(causal)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    tensors = weights if weights is not None else {"model.norm.weight": torch.ones(HIDDEN)}
    for name, tensor in tensors.items():
        values = for_llama_cpp(name, tensor.float().numpy())
        if values.ndim == 1:
            writer.add_tensor(name_in_gguf(name), values)
            continue
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name_in_gguf(name), gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def for_llama_cpp(name: str, values: np.ndarray) -> np.ndarray:
    """Queries and keys with the halves of each head interleaved, the order in which llama.cpp turns them."""
    if "q_proj" not in name and "k_proj" not in name:
        return values
    rows, width = values.shape
    return values.reshape(HEADS, 2, rows // HEADS // 2, width).swapaxes(1, 2).reshape(rows, width)


def name_in_gguf(name: str) -> str:
    parts = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers.": "blk.",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "post_attention_layernorm": "ffn_norm",
        "input_layernorm": "attn_norm",
    }
    for long, short in parts.items():
        name = name.replace(long, short)
    return name


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wheel_of(file: Path, folder: Path) -> Path:
    """A wheel with the file in a package whose import would fail."""
    path = folder / "some_model-1.2.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_model/__init__.py", "raise RuntimeError('imported')")
        archive.write(file, f"some_model/{file.name}")
        archive.writestr(
            "some_model-1.2.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-model\nVersion: 1.2.0\n"
        )
        archive.writestr("some_model-1.2.0.dist-info/RECORD", f"some_model/__init__.py,,\nsome_model/{file.name},,\n")
    return path
