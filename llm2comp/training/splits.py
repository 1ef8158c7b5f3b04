"""Training texts of stage 1: long passages of running text, each cut into a context and its continuation."""

import logging
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from llm2comp.corpus.documents import Document
from llm2comp.encoder import MemoryEncoder
from llm2comp.errors import SettingsError
from llm2comp.training.batches import HELDOUT_ROWS, enough_rows, share_of_rows
from llm2comp.training.run_rows import RowSet
from llm2comp.training.settings import CompressionSettings
from llm2comp.training.sources import training_documents

__all__ = ["Split", "Splits", "cut_in_two", "no_text_message", "passages", "question_count", "read_splits"]

_TEXTS_PER_BLOCK = 256
_DOCUMENTS, _TOO_SHORT, _FEW_TOKENS, _CUT = "documents", "too short", "few tokens", "cut"
_logger = logging.getLogger(__name__)


class Split(NamedTuple):
    """Token ids of a text cut in two."""

    context: list[int]
    """Begins with the beginning-of-sequence token."""
    continuation: list[int]


def cut_in_two(tokens: list[int], *, margin: int, seed: int, row: int) -> Split:
    """Context and continuation of a text, cut at a place that depends on the seed and the text's number alone.

    Args:
        tokens: Token ids, at least `2 * margin + 1`.
        margin: Smallest number of tokens on either side; the place is drawn uniformly between the margins.
        seed: Seed of all cuts.
        row: Number of the text.
    """
    place = random.Random(f"{seed}:{row}").randint(margin, len(tokens) - margin)
    return Split(tokens[:place], tokens[place:])


def passages(
    documents: Iterable[Document], min_characters: int, counts: Counter[str] | None = None
) -> Iterator[tuple[str, str]]:
    """Pairs (document id, text): paragraphs joined until they reach the length; a shorter rest is dropped.

    `counts` gets the number of documents read, and of those too short for a single text.
    """
    for document in documents:
        paragraphs: list[str] = []
        made = 0
        for line in document.text.splitlines():
            paragraphs.append(line)
            if sum(map(len, paragraphs)) >= min_characters:
                yield document.id, "\n".join(paragraphs)
                paragraphs, made = [], made + 1
        if counts is not None:
            counts[_DOCUMENTS] += 1
            counts[_TOO_SHORT] += not made


def no_text_message(corpora: Sequence[str], settings: CompressionSettings, counts: Counter[str]) -> str:
    """Message that no text is long enough, with the reasons in the counts of `passages`."""
    return (
        f"no text of at least {settings.min_characters} characters and {2 * settings.margin + 1} tokens in "
        f"{', '.join(corpora)}: {'; '.join(_left_out(settings, counts)) or 'nothing to train on'}; lower "
        "min_characters or margin"
    )


def _left_out(settings: CompressionSettings, counts: Counter[str]) -> Iterator[str]:
    """Why documents and texts are not used, or not as they are."""
    documents = f"{counts[_DOCUMENTS]:,}"
    if number := counts[_TOO_SHORT]:
        yield f"too short: {number:,} of {documents} documents, min_characters {settings.min_characters}"
    if number := counts[_FEW_TOKENS]:
        yield f"texts of fewer than {2 * settings.margin + 1} tokens (margin {settings.margin}): {number:,}"
    if number := counts[_CUT]:
        yield f"cut after {settings.max_tokens} tokens (max_tokens): {number:,}"


class Splits(Dataset[dict[str, Any]]):
    """Texts cut in two, the same way whenever they are read, so that a resumed run sees the same cuts.

    Rows are dictionaries with `id`, `context` and `continuation`; with the objective reconstruction the context is the
    whole text and the continuation is empty.

    Args:
        encoder: Its tokenizer makes the token ids.
        corpora: Sources that `llm2comp.corpus.read.read_corpus` understands.
        settings: Lengths, margin, objective and seed.
        limit: Largest number of texts.

    Raises:
        CorpusError: If a corpus cannot be read.
        SettingsError: If no text is long enough.
    """

    def __init__(
        self, encoder: MemoryEncoder, corpora: Sequence[str], settings: CompressionSettings, *, limit: int
    ) -> None:
        self._settings = settings
        documents = (document for source in corpora for document in training_documents(source))
        counts: Counter[str] = Counter()
        texts = list(islice(self._long_enough(encoder, documents, counts), limit))
        if not texts:
            raise SettingsError(no_text_message(corpora, settings, counts))
        self._ids, self._tokens = zip(*texts, strict=True)
        enough = f"; no more are needed for {settings.steps} updates" if len(texts) == limit else ""
        used = f"{len(texts):,} texts, {sum(map(len, self._tokens)):,} tokens"
        _logger.info("%s", "; ".join([f"{', '.join(corpora)}: {used}", *_left_out(settings, counts)]) + enough)

    def _long_enough(
        self, encoder: MemoryEncoder, documents: Iterable[Document], counts: Counter[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Pairs (document id, token ids as int32) of the texts that can be cut in two, shortened to `max_tokens`."""
        texts = passages(documents, self._settings.min_characters, counts)
        while block := list(islice(texts, _TEXTS_PER_BLOCK)):
            for (identity, _), tokens in zip(block, encoder.token_ids([text for _, text in block]), strict=True):
                counts[_CUT] += len(tokens) > self._settings.max_tokens
                if len(tokens) < 2 * self._settings.margin + 1:
                    counts[_FEW_TOKENS] += 1
                else:
                    yield identity, np.array(tokens[: self._settings.max_tokens], dtype=np.int32)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def row_set(self) -> RowSet:
        """The texts as rows of a run."""
        return RowSet(len(self), self._digest)

    def _digest(self, count: int) -> str:
        digest = blake2b(digest_size=16)
        for tokens in self._tokens[:count]:
            digest.update(tokens.tobytes() + b"|")
        return digest.hexdigest()

    def __getitem__(self, row: int) -> dict[str, Any]:
        if self._settings.objective == "reconstruction":
            return {"id": self._ids[row], "context": self._tokens[row].tolist(), "continuation": []}
        return self.split(row)

    def split(self, row: int) -> dict[str, Any]:
        """Id, context and continuation of a text, whatever the objective; each part has at least `margin` tokens."""
        margin, seed = self._settings.margin, self._settings.seed
        halves = cut_in_two(self._tokens[row].tolist(), margin=margin, seed=seed, row=row)
        return {"id": self._ids[row], **halves._asdict()}


def question_count(settings: CompressionSettings) -> int:
    """Number of rows of a run that are questions."""
    return share_of_rows(settings.steps * settings.batch_size, settings.question_share) if settings.questions else 0


def read_splits(encoder: MemoryEncoder, settings: CompressionSettings) -> tuple[Splits, Splits | None]:
    """Training texts of a stage, as many as its updates need, and its held-out texts, if it names some.

    Raises:
        CorpusError: If a corpus cannot be read.
        SettingsError: If no text is long enough, or the training texts do not fill a batch.
    """
    rows = settings.steps * settings.batch_size
    most = max(settings.batch_size, rows - question_count(settings))
    texts = Splits(encoder, settings.corpora, settings, limit=most)
    enough_rows(len(texts), settings.batch_size, settings.corpora)
    if settings.heldout is None:
        return texts, None
    return texts, Splits(encoder, (settings.heldout,), settings, limit=HELDOUT_ROWS)
