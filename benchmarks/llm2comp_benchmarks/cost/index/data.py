"""Vectors to measure indexes on, kept in a folder with their documents and queries.

They are those of a corpus, encoded once, or synthetic ones with the structure of text embeddings.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.errors import SettingsError

if TYPE_CHECKING:
    from llm2comp import LLM2Comp

__all__ = ["VectorSet", "draw_vectors", "encode_corpus", "open_set", "write_synthetic"]

TUNING_QUERIES = 300
_BLOCK = 8192
_TOPICS, _SUBTOPICS = 250, 16
_WIDTHS = {"topic": 1.0, "subtopic": 0.75, "vector": 0.85}
_DECAY = 0.6
_WORDS = 40


@dataclass(frozen=True, slots=True)
class VectorSet:
    """A folder of vectors, their documents, and queries that are not among them.

    Attributes:
        folder: Holds `vectors/vectors.npy` (rows, dimension), `ids.txt`, `documents.jsonl`, `queries.npy` and
            `tuning.npy`.
        name: For tables.
        source: Where the vectors come from, as a sentence.
        query_source: Where the queries come from, as a sentence.
        rows: Number of vectors.
        dimension: Of a vector.
        queries: Number of queries to measure with; the 300 of `tuning.npy`, to tune an index with, are others.
        encode_seconds: Time to encode the vectors; 0 for synthetic ones.
        fingerprint: Of the model that encoded them; empty for synthetic ones.
    """

    folder: Path
    name: str
    source: str
    query_source: str
    rows: int
    dimension: int
    queries: int
    encode_seconds: float = 0.0
    fingerprint: str = ""

    @property
    def vectors(self) -> Path:
        """File of the vectors, alone in its folder, as autofaiss takes them."""
        return self.folder / "vectors" / "vectors.npy"

    def load(self, name: str) -> NDArray[np.float32]:
        """The array `queries` or `tuning`, (queries, dimension)."""
        array: NDArray[np.float32] = np.load(self.folder / f"{name}.npy", allow_pickle=False)
        return array

    def map_vectors(self) -> NDArray[np.float32]:
        """All vectors (rows, dimension), mapped."""
        array: NDArray[np.float32] = np.load(self.vectors, mmap_mode="r", allow_pickle=False)
        return array


def open_set(folder: Path) -> VectorSet | None:
    """The set in the folder; None if there is none or it is unfinished."""
    file = folder / "set.json"
    return VectorSet(folder=folder, **json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def _finish(content: VectorSet) -> VectorSet:
    fields: dict[str, Any] = asdict(content)
    del fields["folder"]
    (content.folder / "set.json").write_text(json.dumps(fields), encoding="utf-8")
    return content


def draw_vectors(rows: int, dimension: int, *, seed: int = 0) -> Iterator[NDArray[np.float32]]:
    """Blocks of unit vectors (rows, dimension) with the structure of text embeddings; the same for the same seed.

    - They have a common mean: embeddings lie in a cone, not around the origin.
    - They fall into 250 topics of 16 subtopics each, whose sizes fall as 1/rank: a few are large, most are small.
    - On every level they spread along directions whose standard deviation falls as rank^-0.6, as spectra of embeddings
      do: neighbours differ in few of them.
    - The spread within a subtopic varies by a factor of up to 2: some are dense, some sparse.

    Topics come from a generator with a seed of its own, so that every `seed` draws from the same distribution.
    """
    world = np.random.default_rng(20_260_101)
    scale = (np.arange(1, dimension + 1) ** -_DECAY).astype(np.float32)
    scale *= np.sqrt(dimension / np.sum(scale**2))
    mean = world.standard_normal(dimension, dtype=np.float32)
    centres = _WIDTHS["topic"] * scale * world.standard_normal((_TOPICS, 1, dimension), dtype=np.float32)
    centres = centres + _WIDTHS["subtopic"] * world.permutation(scale) * world.standard_normal(
        (_TOPICS, _SUBTOPICS, dimension), dtype=np.float32
    )
    centres = mean + centres.reshape(-1, dimension)  # (topics * subtopics, dimension)
    spreads = (
        _WIDTHS["vector"] * world.permutation(scale) * world.uniform(0.6, 1.2, (len(centres), 1)).astype(np.float32)
    )
    share = 1 / np.arange(1, len(centres) + 1)
    share = world.permutation(share / share.sum())
    generator = np.random.default_rng(seed)
    for start in range(0, rows, _BLOCK):
        count = min(_BLOCK, rows - start)
        chosen = generator.choice(len(centres), count, p=share)
        block = centres[chosen] + spreads[chosen] * generator.standard_normal((count, dimension), dtype=np.float32)
        yield (block / np.linalg.norm(block, axis=1, keepdims=True)).astype(np.float32)


def write_synthetic(folder: Path, rows: int, dimension: int, *, queries: int, seed: int = 0) -> VectorSet:
    """Writes a set of synthetic vectors, each with a document of 40 random words."""
    (folder / "vectors").mkdir(parents=True, exist_ok=True)
    out = np.lib.format.open_memmap(
        folder / "vectors" / "vectors.npy", mode="w+", dtype=np.float32, shape=(rows, dimension)
    )
    start = 0
    for block in draw_vectors(rows, dimension, seed=seed):
        out[start : start + len(block)] = block
        start += len(block)
    out.flush()
    _write_documents(folder, _synthetic_documents(rows, seed))
    for name, count, its_seed in (("queries", queries, seed + 1), ("tuning", TUNING_QUERIES, seed + 2)):
        np.save(folder / f"{name}.npy", np.concatenate(list(draw_vectors(count, dimension, seed=its_seed))))
    source = (
        f"synthetic: {_TOPICS} topics of {_SUBTOPICS} subtopics in a cone, sizes and spectra by power laws, seed {seed}"
    )
    return _finish(
        VectorSet(folder, f"synthetic-{rows}", source, "others of the same distribution", rows, dimension, queries)
    )


def _synthetic_documents(rows: int, seed: int) -> Iterator[Document]:
    generator = np.random.default_rng(seed)
    vocabulary = [f"word{number}" for number in range(4096)]
    for row in range(rows):
        words = " ".join(vocabulary[place] for place in generator.integers(0, len(vocabulary), _WORDS).tolist())
        yield Document(f"document-{row}", f"Document {row}", words)


def _write_documents(folder: Path, documents: Iterator[Document]) -> None:
    with (
        (folder / "documents.jsonl").open("w", encoding="utf-8") as file,
        (folder / "ids.txt").open("w", encoding="utf-8") as ids,
    ):
        for one in documents:
            file.write(
                json.dumps({"_id": one.id, "title": one.title, "text": one.text, "metadata": one.metadata}) + "\n"
            )
            ids.write(f"{one.id}\n")


def encode_corpus(folder: Path, corpus: str, model: "LLM2Comp", *, queries: int, seed: int = 0) -> VectorSet:
    """Writes a set of a corpus's documents, encoded; queries are first lines of random documents outside the set.

    Raises:
        SettingsError: The corpus has fewer than twice as many documents as queries are needed.
    """
    from llm2comp.corpus.read import read_corpus

    documents = list(read_corpus(corpus))
    needed = queries + TUNING_QUERIES
    if len(documents) < 2 * needed:
        raise SettingsError(
            f"{corpus} has {len(documents):,} documents, too few for {needed:,} queries that are left out of it; "
            f"expected {2 * needed:,}"
        )
    order = np.random.default_rng(seed).permutation(len(documents))
    first_lines = [
        documents[row].text.strip().partition("\n")[0][:300] or documents[row].title for row in order[:needed]
    ]
    kept = [documents[row] for row in np.sort(order[needed:])]
    (folder / "vectors").mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    vectors = np.asarray(
        model.encode_document([document.content for document in kept], show_progress_bar=False), np.float32
    )
    seconds = time.perf_counter() - start
    np.save(folder / "vectors" / "vectors.npy", vectors)
    query_vectors = np.asarray(model.encode_query(first_lines, show_progress_bar=False), np.float32)
    np.save(folder / "queries.npy", query_vectors[:queries])
    np.save(folder / "tuning.npy", query_vectors[queries:])
    _write_documents(folder, iter(kept))
    origin = "first lines of random documents that were left out, encoded as queries"
    return _finish(
        VectorSet(
            folder=folder,
            name=corpus.replace(":", "-").strip("-"),
            source=f"{corpus}, encoded by the model of fingerprint {model.fingerprint[:12]}",
            query_source=origin,
            rows=len(vectors),
            dimension=vectors.shape[1],
            queries=queries,
            encode_seconds=round(seconds, 1),
            fingerprint=model.fingerprint,
        )
    )
