"""A plain implementation of stage 1, as the paper describes it: what ours is compared with."""

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

__all__ = ["PlainTransformers"]

_Tokens = Sequence[Sequence[int]]
_TARGETS = ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class PlainTransformers(nn.Module):
    """Stage 1 by distillation with the means of transformers and peft; `plain transformers` in results.

    Written for this benchmark from the paper's text and from what is known of how its published code spends time and
    memory; nothing is copied. It

    - holds two whole copies of the language model: one with an adapter, and a frozen one that is teacher and reader;
    - gives the memory tokens k new rows of the vocabulary, and trains the whole embedding matrix;
    - pads each batch on the right, in all three passes;
    - encodes with the causal-LM class, which computes logits of the whole vocabulary for every row and a KV cache,
      both unused;
    - computes logits of the whole vocabulary for every row of teacher and reader too, and holds them until the
      backward pass;
    - takes the divergence from `softmax().log()` instead of `log_softmax`.

    The loss is that of `llm2comp.training.compression.compression_loss` with the objective `distillation`.

    Attributes:
        student: The language model with an adapter, bidirectional.
        frozen: The same language model without an adapter.

    Args:
        model: A causal language model of transformers, Llama-like; it becomes the student.
        frozen: A second copy of it.
        memory: Input vectors of the memory tokens, (k, hidden).
        dropout: Of the adapter; its rank is 16 and its alpha 32.
    """

    def __init__(self, model: PreTrainedModel, frozen: PreTrainedModel, memory: Tensor, *, dropout: float) -> None:
        super().__init__()
        self.frozen = frozen.eval().requires_grad_(False)
        self._first, self._k = model.config.vocab_size, len(memory)
        model.resize_token_embeddings(self._first + self._k, mean_resizing=False)
        model.config.is_causal = False
        settings = LoraConfig(r=16, lora_alpha=32, lora_dropout=dropout, target_modules=_TARGETS, task_type="CAUSAL_LM")
        self.student: Any = get_peft_model(model, settings)
        embeddings: Any = model.get_input_embeddings().weight
        with torch.no_grad():
            embeddings[self._first :] = memory
        embeddings.requires_grad_()

    def forward(self, contexts: _Tokens, continuations: _Tokens) -> Tensor:
        """The mean over texts of the mean divergence over a text's rows, a scalar in nats."""
        k, memory_ids = self._k, range(self._first, self._first + self._k)
        ids, mask = _padded([[*context, *memory_ids] for context in contexts])
        states = self.student(
            input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=True
        ).hidden_states[-1]
        embed = self.frozen.get_input_embeddings()
        read = []
        for row, (context, continuation) in enumerate(zip(contexts, continuations, strict=True)):
            memory = states[row, len(context) : len(context) + k]
            read.append(torch.cat([embed(torch.tensor(context[:1])), memory, embed(torch.tensor(continuation))]))
        seen = pad_sequence([torch.ones(len(rows), dtype=torch.long) for rows in read], batch_first=True)
        student = self.frozen(
            inputs_embeds=pad_sequence(read, batch_first=True), attention_mask=seen, use_cache=True
        ).logits
        ids, mask = _padded([[*pair[0], *pair[1]] for pair in zip(contexts, continuations, strict=True)])
        with torch.no_grad():
            teacher = self.frozen(input_ids=ids, attention_mask=mask, use_cache=True).logits
        losses = []
        for row, (context, continuation) in enumerate(zip(contexts, continuations, strict=True)):
            expected = teacher[row, len(context) - 1 : len(context) + len(continuation)].softmax(-1)
            predicted = student[row, k : k + len(continuation) + 1].softmax(-1).log()
            losses.append((expected * (expected.log() - predicted)).sum(-1).mean())
        return torch.stack(losses).mean()


def _padded(rows: _Tokens) -> tuple[Tensor, Tensor]:
    """Token ids and their mask, (rows, longest)."""
    tensors = [torch.tensor(row) for row in rows]
    return pad_sequence(tensors, batch_first=True), pad_sequence(
        [torch.ones_like(tokens) for tokens in tensors], batch_first=True
    )
