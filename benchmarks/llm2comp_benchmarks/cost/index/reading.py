"""Documents per second that are read, and cut into chunks, beside Arrow's readers and the splitter alone."""

import csv
import json
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from llm2comp.corpus.documents import Document
from llm2comp.corpus.read import read_corpus

__all__ = ["FORMATS", "measure_reading", "write_formats"]

FORMATS = {"jsonl": "documents.jsonl", "csv": "documents.csv", "parquet": "documents.parquet", "markdown": "documents"}
"""What is read, by format, in the folder of `write_formats`."""


def write_formats(folder: Path, corpus: str, documents: int) -> None:
    """Writes the same documents in every format: the first ones of a corpus, over again if it has fewer.

    Each has two typed fields of metadata; a Markdown file has its title as heading, and no metadata.
    """
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    (folder / FORMATS["markdown"]).mkdir(exist_ok=True)
    rows = list(islice(_rows(corpus, documents), documents))
    with (folder / FORMATS["jsonl"]).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with (folder / FORMATS["csv"]).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / FORMATS["parquet"])
    for row in rows:
        path = folder / FORMATS["markdown"] / f"{row['id']}.md"
        path.write_text(f"# {row['title']}\n\n{row['text']}\n", encoding="utf-8")


def _rows(corpus: str, documents: int) -> Iterator[dict[str, Any]]:
    texts = cycle(list(islice(read_corpus(corpus, on_error="skip", csv_strings=True), documents)))
    for number, document in enumerate(texts):
        title = " ".join(document.title.split())
        yield {"id": f"{number:07}", "title": title, "text": document.text, "year": 1900 + number % 200, "price": 0.5}


def measure_reading(
    folder: str, corpus: str, documents: int, model: str | None, chunk_tokens: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Documents per second by format, of the fastest of several rounds.

    `read`: our documents. `strings`: CSV without the pass that finds types. `cut`: read and cut into chunks.
    `splitter`: cut alone, from memory. `peer`: Arrow's reader of the format into a table; of Markdown, the files' text.

    Args:
        folder: Where the files are written.
        corpus: Whose texts they have.
        documents: Number of documents.
        model: Whose tokenizer counts the tokens of chunks; None: the bundled one.
        chunk_tokens: Most tokens of a chunk.
        rounds: Times that each is done.
    """
    import llm2comp
    from llm2comp_indexes import IndexOptions
    from llm2comp_indexes.builder.chunks import make_splitter

    write_formats(Path(folder), corpus, documents)
    split = make_splitter(IndexOptions(chunk_tokens=chunk_tokens), llm2comp.load(model) if model else llm2comp.load())

    def rate(work: Callable[[], object]) -> float:
        return documents / min(map(_seconds, [work] * rounds))

    rates = {}
    for name, file in FORMATS.items():
        path = Path(folder) / file
        rates[name] = _read_rates(path, split, rate)
        rates[name]["peer"] = rate(partial(_PEERS[name], path))
    rates["csv"]["strings"] = rate(lambda: _exhaust(read_corpus(Path(folder) / FORMATS["csv"], csv_strings=True)))
    return rates


def _read_rates(
    path: Path, split: Callable[[Document], object], rate: Callable[[Callable[[], object]], float]
) -> dict[str, float]:
    held = list(read_corpus(path))
    return {
        "read": rate(lambda: _exhaust(read_corpus(path))),
        "cut": rate(lambda: _exhaust(map(split, read_corpus(path)))),
        "splitter": rate(lambda: _exhaust(map(split, held))),
    }


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _exhaust(items: Iterable[object]) -> None:
    for _ in items:
        pass


def _read_json(path: Path) -> object:
    from pyarrow import json as arrow_json

    return arrow_json.read_json(path)


def _read_csv(path: Path) -> object:
    from pyarrow import csv as arrow_csv

    return arrow_csv.read_csv(path, parse_options=arrow_csv.ParseOptions(newlines_in_values=True))


def _read_parquet(path: Path) -> object:
    from pyarrow import parquet

    return parquet.read_table(path)


def _read_texts(path: Path) -> object:
    return [file.read_text(encoding="utf-8") for file in sorted(path.iterdir())]


_PEERS: dict[str, Callable[[Path], object]] = {
    "jsonl": _read_json,
    "csv": _read_csv,
    "parquet": _read_parquet,
    "markdown": _read_texts,
}
