"""Stage 0: a tokenizer and a small Llama trained from raw text, for models small enough to ship inside a package."""

import hashlib
import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.utils.data import Dataset, Subset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

from llm2comp.atomic import staged_folder
from llm2comp.corpus.triples import read_rows
from llm2comp.errors import TrainingError
from llm2comp.training.arguments import in_bfloat16, rows_at_once
from llm2comp.training.batches import HELDOUT_ROWS, RunRows, enough_rows
from llm2comp.training.loss_plot import draw_loss
from llm2comp.training.memory import step_memory, usable_memory
from llm2comp.training.objectives import cross_entropy
from llm2comp.training.run_folder import (
    check_settings,
    main_process_first,
    remember_settings,
    settings_values,
    sole_user,
    write_run_file,
)
from llm2comp.training.settings import BackboneShape, PretrainSettings
from llm2comp.training.sources import training_documents
from llm2comp.training.token_trainer import Batch, TextLoss, TokenTrainer, token_arguments

__all__ = ["Rows", "pretrain", "train_tokenizer", "training_texts", "update_memory"]

_logger = logging.getLogger(__name__)
BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def pretrain(settings: PretrainSettings, output: Path, *, callbacks: Sequence[TrainerCallback] = ()) -> Path:
    """Trains tokenizer and model unless they are finished; an interrupted run resumes from its last checkpoint.

    Args:
        settings: See `PretrainSettings`.
        output: Folder of tokenizer, tokenized texts, checkpoints, `metrics.jsonl`, `loss.png` and the finished
            `backbone/`.
        callbacks: Callbacks of the transformers trainer, to observe the model during training.

    Returns:
        Folder of the finished backbone, in bfloat16, loadable by transformers.

    Raises:
        CorpusError: If the texts cannot be read.
        SettingsError: If the texts do not fill a batch, or the folder was begun with other settings.
        TrainingError: If the loss is not finite.
    """
    finished = output / "backbone"
    check_settings(output, settings_values(settings))
    if finished.is_dir():
        return finished
    with sole_user(output):
        arguments = token_arguments(settings, output, optim="adamw_torch_fused", adam_beta2=0.98)
        with main_process_first() as main:
            if main:
                remember_settings(output, settings_values(settings))
            tokenizer = _tokenizer(settings, output / "tokenizer")
            rows = Rows(output / "tokens.npy", training_texts(settings.corpora), tokenizer, settings.sequence_length)
            heldout = Rows(
                output / "heldout.npy", training_texts((settings.heldout,)), tokenizer, settings.sequence_length
            )
        enough_rows(len(rows), settings.batch_size, settings.corpora)
        enough_rows(len(heldout), 1, (settings.heldout,))
        torch.manual_seed(settings.seed)
        model = LlamaForCausalLM(_config(settings.shape, tokenizer))
        _logger.info(
            "%d training rows of %d tokens, %d parameters", len(rows), settings.sequence_length, model.num_parameters()
        )
        trainer = TokenTrainer(
            settings,
            _NextTokenLoss(model),
            args=arguments,
            train_dataset=RunRows(rows, length=settings.steps * settings.batch_size, seed=settings.seed),
            eval_dataset=Subset(heldout, range(min(HELDOUT_ROWS, len(heldout)))),
            callbacks=list(callbacks),
        )
        try:
            trainer.run()
        finally:
            if trainer.is_world_process_zero():
                draw_loss(output)
        with main_process_first() as main:
            if main:
                with staged_folder(finished, kind="backbone", error=TrainingError) as unfinished:
                    model.bfloat16().save_pretrained(unfinished)
                    tokenizer.save_pretrained(unfinished)
    return finished


def update_memory(settings: PretrainSettings, backbone: Path) -> tuple[float, float]:
    """Bytes that an update takes besides the model, and those that it may take; measured on a row of any tokens.

    Args:
        settings: Rows and their length.
        backbone: A model of their shape.
    """
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(backbone, dtype=torch.float32)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loss = _NextTokenLoss(model.to(device))  # type: ignore[arg-type]  # a device by position
    row = torch.arange(settings.sequence_length, device=device)[None] % model.config.vocab_size
    step = step_memory(
        loss, model, lambda copies: loss(row.repeat(copies, 1)), row.numel(), bfloat16=in_bfloat16(settings)
    )
    return step.of_pass(rows_at_once(settings) * settings.sequence_length), usable_memory(device)


def _tokenizer(settings: PretrainSettings, folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in the folder; if there is none, it is trained and written there."""
    if not folder.is_dir():
        texts = (text for text in training_texts(settings.corpora) if _chance(text) < settings.tokenizer_share)
        trained = train_tokenizer(texts, settings.shape.vocabulary)
        with staged_folder(folder, kind="tokenizer", error=TrainingError) as unfinished:
            trained.save_pretrained(unfinished)
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer


def training_texts(corpora: Iterable[str]) -> Iterator[str]:
    """Texts of the corpora one after another, each text of a corpus once, without held-out docstrings.

    A source `pairs:FILE` is a file of training pairs; query and positive are read as one text.

    Raises:
        CorpusError: If a corpus cannot be read.
    """
    for source in corpora:
        if source.startswith("pairs:"):
            for _, row in read_rows(source.removeprefix("pairs:"), negatives_from_label=True):
                yield from (f"{row.query}\n{positive}" for positive in row.positives)
            continue
        seen: set[bytes] = set()
        for document in training_documents(source):
            digest = hashlib.sha256(document.text.encode()).digest()[:12]
            if digest not in seen:
                seen.add(digest)
                yield document.content


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in lower case: a small vocabulary has no room for other spellings of its words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, clean_up_tokenization_spaces=False
    )


def _chance(text: str) -> float:
    """Number in [0, 1) that depends on the text alone."""
    return zlib.crc32(text.encode()) / 2**32


def _config(shape: BackboneShape, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


class Rows(Dataset[dict[str, Any]]):
    """Rows of a fixed length, cut from texts laid end to end as `<s> text </s>`.

    Args:
        path: File of the token ids (uint16), mapped into memory; written first if it does not exist.
        texts: Read only if the file does not exist.
        tokenizer: Has at most 65,536 entries.
        length: Tokens per row.
    """

    def __init__(self, path: Path, texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, length: int) -> None:
        if not path.is_file():
            tokens = np.concatenate([np.empty(0, np.uint16), *_tokenised(texts, tokenizer)])
            header = BytesIO()
            np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(tokens))
            write_run_file(path, [header.getvalue(), tokens.tobytes()])
        self._tokens = np.load(path, mmap_mode="r")
        self._length = length

    def __len__(self) -> int:
        return len(self._tokens) // self._length

    def __getitem__(self, row: int) -> dict[str, Any]:
        tokens = self._tokens[row * self._length : (row + 1) * self._length]
        return {"id": row, "input_ids": torch.from_numpy(tokens.astype(np.int64))}


def _tokenised(texts: Iterable[str], tokenizer: PreTrainedTokenizerFast) -> Iterator[np.ndarray]:
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True  # "</s>" inside a text is text
    remaining = iter(texts)
    while block := list(islice(remaining, 1000)):
        for encoding in backend.encode_batch_fast(block, add_special_tokens=False):
            yield np.array([tokenizer.bos_token_id, *encoding.ids, tokenizer.eos_token_id], dtype=np.uint16)


class _NextTokenLoss(TextLoss):
    """Next-token loss whose logits are never all in memory at a time."""

    columns = ("input_ids",)

    def __init__(self, model: LlamaForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
        targets = tokens[:, 1:].flatten()
        weights = torch.full(targets.shape, 1 / len(targets), device=targets.device)
        return cross_entropy(states, targets, weights, self.model.lm_head, parameters=[self.model.lm_head.weight])

    def terms(self, batch: Batch) -> int:
        return int(batch["input_ids"][:, 1:].numel())

    def tokens(self, batch: Batch) -> int:
        return int(batch["input_ids"].numel())

    def collate(self, rows: list[dict[str, Any]]) -> Batch:
        batch = super().collate(rows)
        return {**batch, "input_ids": torch.stack(batch["input_ids"])}  # (rows, tokens)
