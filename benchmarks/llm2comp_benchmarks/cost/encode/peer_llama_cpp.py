"""Files for llama.cpp: our plain export as GGUF, and the token ids of the texts, which `peer_llama_cpp.mjs` reads.

`python -m llm2comp_benchmarks.cost.encode.peer_llama_cpp write KEYWORDS` writes them. llama.cpp pools all tokens by the
mean where ours pools the memory tokens, so vectors differ; layers, tokens and attention in both directions are the
same. Token ids spare it a tokenizer: its times leave tokenising out.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import LLM2CompError
from llm2comp.optional import optional_import
from llm2comp_benchmarks.cost.encode.peer_graph import query_prompt
from llm2comp_benchmarks.cost.models import PARTS
from llm2comp_benchmarks.cost.processes import answer_once, module_command, run_process
from llm2comp_benchmarks.cost.text_kinds import text_name

__all__ = ["llama_cpp_command", "llama_cpp_version", "write_files"]

_SCRIPT = Path(__file__).with_name("peer_llama_cpp.mjs")
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""Weights of a layer: transformers' name of a Llama's, and GGUF's."""


def llama_cpp_version(modules: Path) -> str:
    """Version of node-llama-cpp in a folder `node_modules`.

    Raises:
        LLM2CompError: It is not there, or gguf is not installed; the message has the command.
    """
    optional_import("gguf", extra="peers", needed_by="the peer llama.cpp")
    try:
        package = json.loads((modules / "node-llama-cpp" / "package.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise LLM2CompError(
            f"the peer llama.cpp needs node-llama-cpp, which is not in {modules}: npm install node-llama-cpp, and give "
            "its folder node_modules as --node-modules"
        ) from error
    version: str = package["version"]
    return version


def llama_cpp_command(folder: Path, modules: Path, precision: str, kinds: Sequence[str], threads: int) -> list[str]:
    """The command line of the peer; its files are written into the prepared folder first.

    Raises:
        LLM2CompError: The files could not be written.
    """
    arguments: dict[str, Any] = {"folder": str(folder), "precision": precision, "kinds": list(kinds)}
    run_process("files of llama.cpp", module_command(__name__, "write", **arguments), threads)
    arguments |= {"modules": str(modules.resolve()), "threads": threads}
    return ["node", str(_SCRIPT), json.dumps(arguments)]


def write_files(folder: str, precision: str, kinds: Sequence[str]) -> dict[str, Any]:
    """Writes `llama-PRECISION.gguf`, and the token ids of each kind of texts and of queries.

    Args:
        folder: The folder that `models.prepare` filled.
        precision: bfloat16 or q8_0.
        kinds: Kinds of texts.
    """
    from transformers import AutoTokenizer

    plain = Path(folder) / PARTS["plain"]
    _write_gguf(plain, Path(folder) / f"llama-{precision}.gguf", precision)
    tokenizer = AutoTokenizer.from_pretrained(plain, local_files_only=True)
    for kind in kinds:
        texts = json.loads((Path(folder) / f"{text_name(kind)}.json").read_text(encoding="utf-8"))
        _write_ids(Path(folder) / f"{kind}-ids.json", tokenizer, texts)
        if kind == "short":
            prompt = query_prompt(plain)
            _write_ids(Path(folder) / "query-ids.json", tokenizer, [prompt + text for text in texts])
    return {}


def _write_ids(file: Path, tokenizer: Any, texts: list[str]) -> None:
    file.write_text(json.dumps(tokenizer(texts, truncation=True)["input_ids"]), encoding="utf-8")


def _write_gguf(plain: Path, file: Path, precision: str) -> None:
    """Writes a Llama that reads in both directions and pools by the mean, with names of tokens that stand for nothing.

    Raises:
        LLM2CompError: The export is no Llama.
    """
    import gguf
    from safetensors.torch import load_file

    config = json.loads((plain / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "llama":
        raise LLM2CompError(f"llama.cpp is compared on Llama's architecture; this model is of {config['model_type']}")
    writer = gguf.GGUFWriter(file, "llama-embed")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    _add_vocabulary(writer, config["vocab_size"])
    kind = {"bfloat16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0}[precision]
    for part in sorted(plain.glob("*.safetensors")):
        for name, tensor in load_file(part).items():
            weight = _ordered(name, tensor.float().numpy(), config)
            quantized = weight if weight.ndim == 1 else gguf.quants.quantize(weight, kind)
            writer.add_tensor(_gguf_name(name), quantized, raw_dtype=None if weight.ndim == 1 else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: Any, size: int) -> None:
    """Adds names of tokens, without which llama.cpp does not load; no text is tokenised with them."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"token{row}" for row in range(size)])
    writer.add_token_merges(["t o"])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def _gguf_name(name: str) -> str:
    """GGUF's name of a weight of transformers' LlamaModel."""
    if name == "embed_tokens.weight":
        return "token_embd.weight"
    if name == "norm.weight":
        return "output_norm.weight"
    _, layer, part = name.removesuffix(".weight").split(".", 2)
    return f"blk.{layer}.{_NAMES[part]}.weight"


def _ordered(name: str, weight: NDArray[np.float32], config: dict[str, Any]) -> NDArray[np.float32]:
    """Rows of queries and keys in llama.cpp's order: it turns neighbouring dimensions, transformers both halves."""
    counts = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    part = name.split(".")[-2]
    if part not in counts:
        return weight
    heads = weight.reshape(config[counts[part]], 2, -1, weight.shape[1])
    return heads.swapaxes(1, 2).reshape(weight.shape)


if __name__ == "__main__":
    answer_once({"write": write_files})
