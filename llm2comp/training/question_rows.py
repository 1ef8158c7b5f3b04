"""Training rows of stage 1 that are questions: a passage is the context, a question with its answer the continuation.

With distillation no label is trusted: the memory tokens learn what the language model itself would say after the
passage. Files are JSON lines with a question, the passage and the answer; those that `derive` writes for the kind
`question-passage` are such files (the answer is the sentence that the question was made from).
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from llm2comp.corpus.read import read_json_lines
from llm2comp.encoder import MemoryEncoder
from llm2comp.errors import SettingsError
from llm2comp.training.run_rows import RowSet
from llm2comp.training.settings import CompressionSettings

__all__ = ["QUESTION_TEMPLATE", "QuestionRows", "read_question_files"]

QUESTION_TEMPLATE = "\n\nQuestion: {question}\nAnswer:"
"""What stands between a passage and its answer; a space and the answer follow."""

_FIELDS = {"question": ("question", "query"), "context": ("context", "passage", "positive"), "answer": ("answer",)}
_PER_BLOCK = 256
_SHORT, _LONG, _CUT = "short", "long", "cut"
_logger = logging.getLogger(__name__)


class AnsweredQuestion(NamedTuple):
    """A row of a file: the passage, the question, and its answer."""

    id: str
    context: str
    question: str
    answer: str


def read_question_files(paths: Sequence[str]) -> Iterator[AnsweredQuestion]:
    """Rows of JSON lines files, in order; names of fields as `_FIELDS` has them.

    Raises:
        CorpusError: A file cannot be read.
        SettingsError: A row lacks a field, or one of them holds no text.
    """
    for path in paths:
        for number, fields in read_json_lines(Path(path)):
            texts = [_text(fields, name, f"{path}:{number}") for name in ("context", "question", "answer")]
            yield AnsweredQuestion(f"{Path(path).name}:{number}", *texts)


def _text(fields: Mapping[str, Any], name: str, place: str) -> str:
    for known in _FIELDS[name]:
        if isinstance(text := fields.get(known), str) and text.strip():
            return text.strip()
    raise SettingsError(
        f"{place}: no {name}; a row of questions needs question, context and answer, each a text (also called "
        f"{', '.join(other for names in _FIELDS.values() for other in names[1:])})"
    )


class QuestionRows(Dataset[dict[str, Any]]):
    """Question rows as token ids: context (beginning token first) and continuation.

    The passage is cut so that both have at most `max_tokens`; rows whose question and answer leave it fewer than
    `margin` tokens are left out.

    Args:
        encoder: Its tokenizer makes the token ids.
        settings: Files, lengths and margin.
        limit: Largest number of rows.

    Raises:
        CorpusError: If a file cannot be read.
        SettingsError: If a row lacks a field, there is no row, or none leaves its passage enough tokens.
    """

    def __init__(self, encoder: MemoryEncoder, settings: CompressionSettings, *, limit: int) -> None:
        counts: Counter[str] = Counter()
        self._rows = list(islice(_tokenized(encoder, settings, counts), limit))
        files = ", ".join(settings.questions)
        if not self._rows:
            reasons = "; ".join(_left_out(settings, counts)) or "the files are empty"
            raise SettingsError(f"{files}: no question to train on: {reasons}")
        _logger.info("%s", "; ".join([f"{files}: {len(self._rows):,} questions", *_left_out(settings, counts)]))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self._rows[row]

    @property
    def row_set(self) -> RowSet:
        """The questions as rows of a run."""
        return RowSet(len(self), self._digest)

    def _digest(self, count: int) -> str:
        digest = blake2b(digest_size=16)
        for row in self._rows[:count]:
            digest.update(repr((row["context"], row["continuation"])).encode())
        return digest.hexdigest()


def _left_out(settings: CompressionSettings, counts: Counter[str]) -> Iterator[str]:
    """Why questions are not used, or not as they are."""
    if number := counts[_SHORT]:
        yield f"passages of fewer than {settings.margin} tokens, left out (margin): {number:,}"
    if number := counts[_LONG]:
        yield (
            f"question and answer leave the passage fewer than {settings.margin} tokens, left out (max_tokens "
            f"{settings.max_tokens}): {number:,}"
        )
    if number := counts[_CUT]:
        yield f"passages cut, with question and answer {settings.max_tokens} tokens (max_tokens): {number:,}"


def _tokenized(encoder: MemoryEncoder, settings: CompressionSettings, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    rows = read_question_files(settings.questions)
    while block := list(islice(rows, _PER_BLOCK)):
        asked = [f"{QUESTION_TEMPLATE.replace('{question}', row.question)} {row.answer}" for row in block]
        ids = encoder.whole_ids([*(row.context for row in block), *asked])
        for row, context, continuation in zip(block, ids[: len(block)], ids[len(block) :], strict=True):
            room = settings.max_tokens - len(continuation)
            before = [encoder.beginning, *context]
            if len(before) < settings.margin:
                counts[_SHORT] += 1
            elif room < settings.margin:
                counts[_LONG] += 1
            else:
                counts[_CUT] += len(before) > room
                yield {"id": row.id, "context": before[:room], "continuation": continuation}
