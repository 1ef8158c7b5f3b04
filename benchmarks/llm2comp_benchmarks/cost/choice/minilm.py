"""An encoder of the shape of all-MiniLM-L6-v2 with random weights, which takes as long as the real one."""

from collections.abc import Sequence
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

__all__ = ["MINILM", "make_minilm"]

MINILM = "MiniLM-L6"
"""Name of this encoder in results."""

_WORDS = 30_522
_TOKENS = 256


def make_minilm(folder: Path, texts: Sequence[str], *, seed: int = 0) -> None:
    """Writes a sentence-transformers model: 6 layers of 384 numbers, the mean of at most 256 tokens.

    Its word pieces are learned from the texts, as many as the real one has; so it needs about as many tokens for them.

    Args:
        folder: A new folder.
        texts: Texts for the word pieces.
        seed: Of the weights.
    """
    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator(texts, vocab_size=_WORDS, show_progress=False)
    bare = folder / "bare"
    bare.mkdir(parents=True)
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=pieces._tokenizer, model_max_length=512, **special).save_pretrained(bare)
    torch.manual_seed(seed)
    shape = BertConfig(
        vocab_size=_WORDS, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    BertModel(shape).save_pretrained(bare)
    words = Transformer(str(bare), max_seq_length=_TOKENS)
    pooling = Pooling(words.get_embedding_dimension(), pooling_mode="mean")
    SentenceTransformer(modules=[words, pooling, Normalize()], device="cpu").save(str(folder / "model"))
