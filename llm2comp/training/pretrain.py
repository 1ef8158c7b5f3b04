"""Stage 0: a tokenizer and a small Llama from raw text, for those who ship a model small enough to live in a package."""

import hashlib
import logging
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer

from llm2comp.atomic import staged_folder
from llm2comp.corpus.triples import read_rows
from llm2comp.errors import TrainingError
from llm2comp.training.batches import RunRows, enough_rows
from llm2comp.training.loop import StageMixin, trainer_arguments
from llm2comp.training.objectives import cross_entropy
from llm2comp.training.run_folder import check_settings, described, main_process_first, remember_settings, sole_user
from llm2comp.training.settings import BackboneShape, PretrainSettings
from llm2comp.training.sources import training_documents

__all__ = ["Rows", "pretrain", "train_tokenizer", "training_texts"]

_HELDOUT_ROWS = 128
_logger = logging.getLogger(__name__)
BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def pretrain(settings: PretrainSettings, output: Path) -> Path:
    """Trains tokenizer and model unless they are there already; an interrupted run goes on from its last checkpoint.

    Returns:
        The folder of the finished backbone, in bfloat16, loadable by transformers.

    Raises:
        CorpusError, SettingsError: If the texts cannot be read, do not fill a batch, or the folder was begun with other
        settings. TrainingError: If the loss is not finite.
    """
    finished = output / "backbone"
    check_settings(output, described(settings))
    if finished.is_dir():
        return finished
    with sole_user(output):
        arguments = trainer_arguments(
            settings,
            output,
            optim="adamw_torch_fused",
            eval_strategy="steps",
            adam_beta2=0.98,
            remove_unused_columns=False,
        )
        with main_process_first() as main:
            if main:
                remember_settings(output, described(settings))
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
        trainer = _PretrainTrainer(
            settings,
            model=_NextToken(model),
            args=arguments,
            train_dataset=RunRows(rows, wanted=settings.steps * settings.batch_size, seed=settings.seed),
            eval_dataset=_First(heldout, _HELDOUT_ROWS),
        )
        trainer.run()
        with main_process_first() as main:
            if main:
                with staged_folder(finished, kind="backbone", error=TrainingError) as unfinished:
                    model.bfloat16().save_pretrained(unfinished)
                    tokenizer.save_pretrained(unfinished)
    return finished


def _tokenizer(settings: PretrainSettings, folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in the folder, trained first if there is none."""
    if not folder.is_dir():
        texts = (text for text in training_texts(settings.corpora) if _chance(text) < settings.tokenizer_share)
        trained = train_tokenizer(texts, settings.shape.vocabulary)
        with staged_folder(folder, kind="tokenizer", error=TrainingError) as unfinished:
            trained.save_pretrained(unfinished)
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer


def training_texts(corpora: Iterable[str]) -> Iterator[str]:
    """Texts of the corpora one after another, each text once; docstrings that are kept for measuring are left out.

    A source `pairs:FILE` is a file of training pairs, whose query and positive are read as one text.
    """
    for source in corpora:
        if source.startswith("pairs:"):
            for _, row in read_rows(source.removeprefix("pairs:")):
                yield from (f"{row.query}\n{positive}" for positive in row.positives)
            continue
        seen: set[bytes] = set()
        for document in training_documents(source):
            digest = hashlib.sha256(document.text.encode()).digest()[:12]
            if digest not in seen:
                seen.add(digest)
                yield document.content


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in lower case: a small vocabulary spent on words, not on their spellings."""
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
    """A number in [0, 1) that depends on the text alone."""
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
    """Rows of a fixed length out of texts laid end to end, `<s> text </s>`, tokenised once into a file that is mapped."""

    def __init__(self, path: Path, texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, length: int) -> None:
        if not path.is_file():
            unfinished = path.with_suffix(".partial.npy")
            np.save(unfinished, np.concatenate([np.empty(0, np.uint16), *_tokenised(texts, tokenizer)]))
            unfinished.replace(path)
        self._tokens = np.load(path, mmap_mode="r")
        self._length = length

    def __len__(self) -> int:
        return len(self._tokens) // self._length

    def __getitem__(self, row: int) -> dict[str, Any]:
        tokens = self._tokens[row * self._length : (row + 1) * self._length]
        return {"input_ids": torch.from_numpy(tokens.astype(np.int64)), "ids": row}


class _First(Dataset[dict[str, Any]]):
    """The first rows of a data set."""

    def __init__(self, rows: Rows, count: int) -> None:
        self._rows, self._count = rows, min(count, len(rows))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self._rows[row]


def _tokenised(texts: Iterable[str], tokenizer: PreTrainedTokenizerFast) -> Iterator[np.ndarray]:
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True  # "</s>" inside a text is text
    remaining = iter(texts)
    while block := list(islice(remaining, 1000)):
        for encoding in backend.encode_batch_fast(block, add_special_tokens=False):
            yield np.array([tokenizer.bos_token_id, *encoding.ids, tokenizer.eos_token_id], dtype=np.uint16)


class _PretrainTrainer(StageMixin, Trainer):
    """Next-token training whose logits never exist all at once."""

    def tokens_of(self, inputs: dict[str, Any]) -> int:
        return int(inputs["input_ids"].numel())

    def texts_of(self, inputs: dict[str, Any]) -> list[int]:
        return [int(row) for row in inputs["ids"]]

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss = model(inputs["input_ids"])
        return (loss, {"loss": loss}) if return_outputs else loss

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any
    ) -> tuple[Tensor, None, None]:
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None


class _NextToken(nn.Module):
    """The loss as a module: the trainer's mixed precision covers what a module's forward calls."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
        targets = tokens[:, 1:].flatten()
        weights = torch.full(targets.shape, 1 / len(targets), device=targets.device)
        return cross_entropy(states, targets, weights, self.model.lm_head, parameters=[self.model.lm_head.weight])
