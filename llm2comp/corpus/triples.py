"""Training triples in common formats, as data sets for the sentence-transformers trainer.

A row is one JSON object on a line of a .jsonl or .json file (also .gz, .xz, .zst):

- `{"query", "positive", "negative"}`; positive and negative are one text or a list, negative may be null or missing.
  Other common names are read too: `anchor`; `pos`, `positives`; `neg`, `negatives`;
- Tevatron: `{"query", "positive_passages": [{"docid", "title", "text"}], "negative_passages": [...]}`.

Each text may be an object with `text` and `title`; title and text are joined as in a corpus.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from llm2comp.corpus.documents import Document
from llm2comp.corpus.read import read_json_lines
from llm2comp.corpus.records import choose_report
from llm2comp.corpus.text import open_text, uncompressed_name
from llm2comp.errors import CorpusError, SettingsError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["INSTRUCTIONS_FILE", "Triple", "TripleSet", "dataset_name", "read_rows", "read_triples"]

INSTRUCTIONS_FILE = "instructions.yaml"
_QUERY = ("query", "anchor")
_POSITIVE = ("positive", "positives", "pos", "positive_passages")
_NEGATIVE = ("negative", "negatives", "neg", "negative_passages")
_SUFFIXES = (".jsonl", ".json")
_ROWS_PER_BATCH = 4096


class Triple(NamedTuple):
    """One row: a query, at least one text that answers it, and hard negatives, texts that do not (possibly none)."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TripleSet:
    """Pairs of one file with the same number of hard negatives; read from disk by `load`.

    Attributes:
        name: Stem of the file, with `-1neg`, `-2neg` for the pairs with one or two negatives.
        path: The file.
        instruction: Text before every query of this set; None for none.
        negatives: Number of hard negatives of each pair.
        pairs: Number of pairs.
        max_negatives: Maximum number of negatives used, as passed to `read_triples`.
        on_error: Whether a malformed row raises an error or is skipped.
    """

    name: str
    path: Path
    instruction: str | None
    negatives: int
    pairs: int
    max_negatives: int
    on_error: Literal["raise", "skip"] = "raise"

    def load(self) -> "Dataset":
        """The pairs in memory, as string columns `anchor`, `positive`, `negative_1` … `negative_n` of Arrow data."""
        import pyarrow as pa
        from datasets import Dataset

        columns = ["anchor", "positive", *(f"negative_{number}" for number in range(1, self.negatives + 1))]
        schema = pa.schema([(column, pa.large_string()) for column in columns])
        batches, rows = [], list[tuple[str, ...]]()
        for row in self._rows():
            rows.append(row)
            if len(rows) == _ROWS_PER_BATCH:
                batches.append(pa.record_batch(list(map(list, zip(*rows, strict=True))), schema=schema))
                rows = []
        if rows:
            batches.append(pa.record_batch(list(map(list, zip(*rows, strict=True))), schema=schema))
        return Dataset(pa.Table.from_batches(batches, schema=schema))

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for _, triple in read_rows(self.path, on_error=self.on_error, on_skip=_ignore):
            if min(len(triple.negatives), self.max_negatives) == self.negatives:
                for positive in triple.positives:
                    yield (triple.query, positive, *triple.negatives[: self.negatives])


def read_triples(
    source: str | Path,
    *,
    max_negatives: int = 1,
    on_error: Literal["raise", "skip"] = "raise",
    on_skip: Callable[[str], None] | None = None,
) -> list[TripleSet]:
    """Data sets of a training file or of a folder of such files, checked line by line but not loaded.

    A row with several positives gives one pair for each. Of its negatives, the first `max_negatives` are used. All rows
    of a data set must have the same columns, so pairs with different numbers of negatives are in different sets: no
    pair is lost, and no negative is invented.

    Args:
        source: A file, or a folder whose .jsonl and .json files are one data set each. `instructions.yaml` in the
            folder maps the stem of a file to the instruction for its queries; other files have none.
        max_negatives: Maximum number of hard negatives of a pair; 0 leaves them out.
        on_error: Whether a malformed row raises an error or is skipped.
        on_skip: With "skip", receives each message `file:line: what is wrong`.

    Returns:
        Sets by file name, then by number of negatives.

    Raises:
        CorpusError: A file is missing or has no pairs, a row is malformed ("file:line: what"), or an instruction is for
            no file.
        SettingsError: `max_negatives` is negative.
    """
    if max_negatives < 0:
        raise SettingsError(f"max_negatives is {max_negatives}; expected 0 or more")
    path = Path(source)
    files = _list_files(path) if path.is_dir() else [path]
    instructions = _read_instructions(path / INSTRUCTIONS_FILE, files) if path.is_dir() else {}
    sets: list[TripleSet] = []
    for file in files:
        counts: Counter[int] = Counter()
        for _, triple in read_rows(file, on_error=on_error, on_skip=on_skip):
            counts[min(len(triple.negatives), max_negatives)] += len(triple.positives)
        if not counts:
            raise CorpusError(
                f'{file}: no pairs in it; expected lines such as {{"query": "…", "positive": "…", "negative": null}}'
            )
        name = dataset_name(file)
        for negatives, pairs in sorted(counts.items()):
            label = f"{name}-{negatives}neg" if negatives else name
            sets.append(TripleSet(label, file, instructions.get(name), negatives, pairs, max_negatives, on_error))
    return sets


def dataset_name(path: Path) -> str:
    """Name of a file without folder and suffixes: `data/snli.jsonl.gz` -> `snli`."""
    return Path(uncompressed_name(path)).stem


def read_rows(
    path: str | Path, *, on_error: Literal["raise", "skip"] = "raise", on_skip: Callable[[str], None] | None = None
) -> Iterator[tuple[int, Triple]]:
    """Rows of a training file with their line numbers from 1, as a stream.

    Raises:
        CorpusError: The file cannot be read, or a row is malformed and `on_error` is "raise".
    """
    report = choose_report(on_error, on_skip)
    for number, row in read_json_lines(path, on_error=on_error, on_skip=on_skip):
        try:
            triple = _to_triple(row)
        except ValueError as error:
            report(f"{path}:{number}: {error}")
        else:
            yield number, triple


def _to_triple(row: dict[str, Any]) -> Triple:
    query = _field(row, _QUERY)
    if not isinstance(query, str) or not query.strip():
        raise ValueError(f'no query: expected a text under "query", found {_describe(query)}')
    positives = _texts(_field(row, _POSITIVE), "positive")
    if not positives:
        raise ValueError(
            'no positive: expected a text or a list of texts under "positive" (Tevatron: "positive_passages")'
        )
    return Triple(query, positives, _texts(_field(row, _NEGATIVE), "negative"))


def _field(row: dict[str, Any], names: tuple[str, ...]) -> object:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _texts(value: object, role: str) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(_text(entry, role) for entry in entries)


def _text(entry: object, role: str) -> str:
    if isinstance(entry, dict) and isinstance(entry.get("text"), str):
        title = entry.get("title")
        entry = Document("", title if isinstance(title, str) else "", entry["text"]).content
    if not isinstance(entry, str) or not entry.strip():
        raise ValueError(
            f"a {role} is {_describe(entry)}; expected a text that is not empty, or an object with title and text"
        )
    return entry


def _describe(value: object) -> str:
    return (
        "nothing"
        if value is None
        else "an empty text"
        if isinstance(value, str)
        else f"a value of type {type(value).__name__}"
    )


def _list_files(folder: Path) -> list[Path]:
    files = sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and Path(uncompressed_name(path)).suffix in _SUFFIXES and path.name != "pairs.json"
    )
    if not files:
        raise CorpusError(
            f"{folder}: no training file in it; expected .jsonl files (also .gz, .xz, .zst) with query, positive and "
            "negative"
        )
    repeated = [name for name, count in Counter(map(dataset_name, files)).items() if count > 1]
    if repeated:
        raise CorpusError(
            f"{folder}: two files are named {repeated[0]}; data sets are named after their files, so rename one"
        )
    return files


def _read_instructions(path: Path, files: list[Path]) -> dict[str, str]:
    if not path.exists():
        return {}
    import yaml

    try:
        with open_text(path) as file:
            loaded = yaml.safe_load(file)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CorpusError(f"{path}:{line}: not YAML: {error.problem}") from error
    if not isinstance(loaded, dict) or not all(isinstance(text, str) for item in loaded.items() for text in item):
        raise CorpusError(f"{path}: expected lines `name of a file without suffix: instruction`")
    unknown = sorted(set(loaded) - set(map(dataset_name, files)))
    if unknown:
        raise CorpusError(
            f"{path}: instruction for {unknown[0]!r}, but no file of that name; files: "
            f"{', '.join(map(dataset_name, files))}"
        )
    return loaded


def _ignore(message: str) -> None:
    """Does nothing: skipped rows were reported when the file was checked."""
