"""Chunks cut at sentences beside chunks cut at tokens, at several sizes.

`python -m llm2comp_benchmarks.chunks.run XQUAD benchmarks/results/chunks-xquad.json ARTICLES.jsonl 150` measures them:
passages of an article (of a BEIR folder with answers) are put together again, 150 other articles are added, each way of
cutting builds an index with the bundled model, and every question is asked.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import llm2comp
from llm2comp.corpus.split.tokens import Tokens
from llm2comp_benchmarks.chunks.corpus import PassageCorpus, join_passages
from llm2comp_benchmarks.chunks.measure import score
from llm2comp_benchmarks.results.record import result_record, write_record
from llm2comp_indexes import IndexOptions, build_index, open_index
from llm2comp_indexes.builder.chunks import make_text_of_row
from llm2comp_indexes.format.documents import document_line

__all__ = ["WAYS", "measure_options", "measure_ways", "write_documents"]

_logger = logging.getLogger(__name__)

_SIZES = (128, 256, 512)
_RESULTS = 40
"""Number of chunks per question; the smallest fill the largest budget of tokens."""

WAYS: dict[str, dict[str, Any]] = {
    "tokens": {"chunk_at": "tokens"},
    "tokens, a quarter shared": {"chunk_at": "tokens", "overlap": 4},
    "sentences": {},
    "sentences, a quarter shared": {"overlap": 4},
    "sentences without title": {"chunk_context": False},
}
"""Options of each way; `overlap` is the part of a chunk that it may share with the one before: a fourth."""


def measure_ways(
    corpus: PassageCorpus, workdir: Path, *, model: Any, sizes: Sequence[int] = _SIZES
) -> list[dict[str, Any]]:
    """A row for each way and size: number and mean length of its chunks, and its scores.

    Args:
        corpus: Documents and questions.
        workdir: Folder for the indexes, which are written to it.
        model: Encodes them.
        sizes: Numbers of tokens of a chunk.
    """
    path = write_documents(corpus, workdir)
    return [_measure(corpus, path, name, way, size, model) for name, way, size in _all_ways(sizes)]


def write_documents(corpus: PassageCorpus, workdir: Path) -> Path:
    """File of the documents, in the folder."""
    path = workdir / "corpus.jsonl"
    path.write_bytes(b"".join(map(document_line, corpus.documents)))
    return path


def _all_ways(sizes: Sequence[int]) -> Iterator[tuple[str, dict[str, Any], int]]:
    for size in sizes:
        for name, way in WAYS.items():
            yield name, way, size


def _measure(
    corpus: PassageCorpus, path: Path, name: str, way: dict[str, Any], size: int, model: Any
) -> dict[str, Any]:
    chosen = {option: value for option, value in way.items() if option != "overlap"}
    overlap = size // way["overlap"] if "overlap" in way else 0
    options = IndexOptions(type="flat", chunk_tokens=size, chunk_overlap=overlap, **chosen)
    row = {"cut": name, "chunk_tokens": size, **measure_options(corpus, path, options, model)}
    _logger.info("%s", row)
    return row


def measure_options(corpus: PassageCorpus, path: Path, options: IndexOptions, model: Any) -> dict[str, Any]:
    """Number and mean length of the chunks that the options make, and their scores.

    Args:
        corpus: Documents and questions.
        path: File of the documents, beside which an index is written.
        options: How texts are cut.
        model: Encodes them.
    """
    folder = path.with_name("index")
    build_index([path], folder, model=model, options=options, overwrite=folder.exists())
    with open_index(folder, model=model) as index:
        rows = [
            document
            for segment in index.segments
            for document in map(segment.documents.__getitem__, range(segment.rows))
        ]
        results = index.search([question.text for question in corpus.questions], _RESULTS)
    counts = Tokens(model.tokenizer).counts(list(map(make_text_of_row(options, model), rows)))
    tokens = {row.id: count for row, count in zip(rows, counts, strict=True)}
    scores = score(corpus, results, tokens)
    return {
        "chunks": len(rows),
        "mean_tokens": round(sum(counts) / len(counts), 1),
        "passage_at_1": round(scores.passage_at_1, 4),
        "passage_mrr_at_10": round(scores.passage_mrr, 4),
        **{f"answer_in_{budget}_tokens": round(share, 4) for budget, share in scores.answers.items()},
    }


def _main(passages: str, output: str, others: str, most: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    corpus = join_passages(Path(passages), [others], int(most))
    with TemporaryDirectory(prefix="llm2comp-chunks-") as workdir:
        rows = measure_ways(corpus, Path(workdir), model=llm2comp.load())
    settings = {"model": "llm2comp-tiny", "documents": len(corpus.documents), "questions": len(corpus.questions)}
    settings |= {"passages": Path(passages).name, "others": Path(others).name, "results": _RESULTS}
    write_record(output, result_record([], settings) | {"rows": rows})


if __name__ == "__main__":
    _main(*sys.argv[1:])
