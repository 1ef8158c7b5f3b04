"""Chunks cut by fidelity beside chunks of a fixed length, at about equal numbers of chunks.

`python -m llm2comp_benchmarks.chunks.fidelity XQUAD benchmarks/results/chunks-fidelity-NAME.json --model MODEL`
measures them on the corpus of `llm2comp_benchmarks.chunks.run`: for each share, an index is built with
`chunk_fidelity`, and one with `chunk_tokens` of the number that makes the nearest number of chunks. MODEL has a reader
(a model of stage 1), or `--reader` names it. `--others ARTICLES.jsonl 150` adds other articles.
"""

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import llm2comp
from llm2comp.reading import set_reader
from llm2comp_benchmarks.chunks.corpus import PassageCorpus, join_passages
from llm2comp_benchmarks.chunks.run import measure_options, write_documents
from llm2comp_benchmarks.results.record import result_record, write_record
from llm2comp_indexes import IndexOptions
from llm2comp_indexes.builder.chunks import make_splitter

__all__ = ["SHARES", "measure_pairs", "nearest_size"]

_logger = logging.getLogger(__name__)

SHARES = (0.2, 0.4, 0.6, 0.8)
"""Shares of a text's worth that its memory has to keep."""


def measure_pairs(
    corpus: PassageCorpus, workdir: Path, *, model: Any, shares: Sequence[float] = SHARES
) -> list[dict[str, Any]]:
    """Two rows for each share: chunks that keep it, and as many chunks of one length.

    Args:
        corpus: Documents and questions.
        workdir: Folder for the indexes, which are written to it.
        model: Encodes them; it has its reader.
        shares: Shares that memories keep.
    """
    path, rows = write_documents(corpus, workdir), []
    for share in shares:
        begun = time.perf_counter()
        by_fidelity = measure_options(corpus, path, IndexOptions(type="flat", chunk_fidelity=share), model)
        seconds = round(time.perf_counter() - begun, 1)
        rows.append({"cut": "fidelity", "chunk_fidelity": share, **by_fidelity, "seconds": seconds})
        size = nearest_size(corpus, model, by_fidelity["chunks"])
        begun = time.perf_counter()
        by_length = measure_options(corpus, path, IndexOptions(type="flat", chunk_tokens=size), model)
        seconds = round(time.perf_counter() - begun, 1)
        rows.append({"cut": "length", "chunk_tokens": size, **by_length, "seconds": seconds})
        _logger.info("%s\n%s", *rows[-2:])
    return rows


def nearest_size(corpus: PassageCorpus, model: Any, chunks: int) -> int:
    """The number of tokens of a chunk that makes the number of chunks nearest to this one; nothing is encoded."""
    least = 1 + model.tokenizer.num_special_tokens_to_add(False)
    low, high = max(8, least), model.max_seq_length - model.memory_tokens
    counts: dict[int, int] = {}
    while low <= high:
        size = (low + high) // 2
        split = make_splitter(IndexOptions(chunk_tokens=size), model)
        counts[size] = sum(len(split(document)) for document in corpus.documents)
        if counts[size] > chunks:
            low = size + 1
        else:
            high = size - 1
    return min(counts, key=lambda size: (abs(counts[size] - chunks), size))


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("passages", help="BEIR folder with answers")
    parser.add_argument("output", help="result file")
    parser.add_argument("--model", required=True, help="model whose memories are read")
    parser.add_argument("--reader", help="language model that reads them; the model's own without it")
    parser.add_argument("--others", nargs=2, default=None, metavar=("CORPUS", "MOST"), help="other articles")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = llm2comp.load(given.model)
    if given.reader:
        set_reader(model, given.reader)
    others, most = ([given.others[0]], int(given.others[1])) if given.others else ([], None)
    corpus = join_passages(Path(given.passages), others, most)
    with TemporaryDirectory(prefix="llm2comp-chunks-") as workdir:
        rows = measure_pairs(corpus, Path(workdir), model=model, shares=given.shares)
    settings = {"model": Path(given.model).name, "stages": list(model.stages), "memory_tokens": model.memory_tokens}
    settings |= {"reader": Path(given.reader).name if given.reader else "its own"}
    settings |= {"passages": Path(given.passages).name, "others": Path(given.others[0]).name if given.others else None}
    settings |= {"documents": len(corpus.documents), "questions": len(corpus.questions)}
    write_record(given.output, result_record([], settings) | {"rows": rows})


if __name__ == "__main__":
    _main()
