"""Questions answered by a frozen language model from nothing, from memory tokens, and from the texts.

`python -m llm2comp_benchmarks.answers.run XQUAD benchmarks/results/answers-xquad.json --model NAME MODEL READER`
measures it on a BEIR folder with answers. `--model` takes the name of the rows, the model, and its reader (`-`: its
own), and may be repeated. The first passage of a question holds the answer; `--passages` gives the reader others behind
it.
"""

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llm2comp.reading import CompressedReader
from llm2comp_benchmarks.answers.squad import Question, best, exact_match, f1, read_questions
from llm2comp_benchmarks.answers.tables import format_answers
from llm2comp_benchmarks.results.record import result_record, write_record

__all__ = ["CONTEXTS", "measure_answers"]

_logger = logging.getLogger(__name__)
_DIGITS = 4
_RESAMPLES = 2000

CONTEXTS = ("nothing", "memories", "texts")
"""What the reader is given before the question."""


def measure_answers(reader: CompressedReader, questions: Sequence[Question]) -> list[dict[str, Any]]:
    """A row for each context: likelihood of the first right answer, exact match, F1, tokens read and seconds.

    Likelihoods are in nats per answer. Seconds are of answering one question: of `memories`, the reader's alone, since
    memory tokens are made once for each passage; `compress_seconds` says what that takes for each.
    """
    passages = list(dict.fromkeys(passage for question in questions for passage in question.passages))
    begun = time.perf_counter()
    memories = dict(zip(passages, reader.compress(passages), strict=True))
    compress_seconds = (time.perf_counter() - begun) / len(passages)
    rows = [_measure(reader, questions, context, memories) for context in CONTEXTS]
    return [{**row, "compress_seconds": round(compress_seconds, _DIGITS)} for row in rows]


def _measure(
    reader: CompressedReader, questions: Sequence[Question], context: str, memories: dict[str, Any]
) -> dict[str, Any]:
    given: list[Any] = []
    for question in questions:
        if context == "memories":
            given.append(np.stack([memories[passage] for passage in question.passages]))
        else:
            given.append(question.passages if context == "texts" else [])
    compressed = context != "texts"
    likelihoods = reader.log_likelihoods(
        [question.text for question in questions],
        given,
        [question.answers[0] for question in questions],
        compressed=compressed,
    )
    begun = time.perf_counter()
    answers = [
        reader.answer(question.text, each, compressed=compressed)
        for question, each in zip(questions, given, strict=True)
    ]
    seconds = (time.perf_counter() - begun) / len(questions)
    scores = {
        name: [best(score, answer.text, question.answers) for answer, question in zip(answers, questions, strict=True)]
        for name, score in (("exact_match", exact_match), ("f1", f1))
    }
    row = {
        "context": context,
        "questions": len(questions),
        "log_likelihood": _with_interval(likelihoods),
        **{name: _with_interval(np.array(values)) for name, values in scores.items()},
        "tokens_read": round(float(np.mean([answer.tokens_read for answer in answers])), 1),
        "seconds": round(seconds, _DIGITS),
    }
    _logger.info("%s", row)
    return row


def _with_interval(values: Any) -> list[float]:
    """Mean and 95 % bootstrap interval over questions."""
    resamples = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.percentile(values[resamples].mean(-1), [2.5, 97.5])
    return [round(float(value), _DIGITS) for value in (values.mean(), low, high)]


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="BEIR folder with answers.jsonl.gz")
    parser.add_argument("output", help="result file")
    parser.add_argument("--model", nargs=3, action="append", required=True, metavar=("NAME", "MODEL", "READER"))
    parser.add_argument("--passages", type=int, nargs="+", default=[1], help="passages for each question")
    parser.add_argument("--every", type=int, default=1, help="each nth question")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows: list[dict[str, Any]] = []
    for name, place, reader_name in given.model:
        reader = CompressedReader.load(place, reader=None if reader_name == "-" else reader_name)
        for passages in given.passages:
            facts = {
                "model": name,
                "stages": list(reader.model.stages),
                "memory_tokens": reader.memory_tokens,
                "passages": passages,
            }
            questions = read_questions(given.folder, passages=passages, every=given.every)
            rows += [{**facts, **row} for row in measure_answers(reader, questions)]
    settings = {"questions": given.folder.name, "every": given.every, "template": reader.template}
    record = result_record([], settings) | {"rows": rows}
    write_record(given.output, record)
    _logger.info("%s", format_answers(record))


if __name__ == "__main__":
    _main()
