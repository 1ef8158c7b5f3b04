"""Training triples in common formats, as data sets for the sentence-transformers trainer.

A row is one JSON object on a line of a .jsonl, .ndjson or .json file (also .gz, .xz, .zst), or a row of a .csv, .tsv
or .parquet file with the same columns; an empty cell is no value:

- `{"query", "positive", "negative"}`; positive and negative are one text or a list, negative may be null or missing.
  Other common names are read too, in any case: `anchor`, `question`; `pos`, `positives`, `positive_texts`; `neg`,
  `negatives`, `hard_negatives`, `negative_texts`. A number behind the name, as in `negative_1` to `negative_n` of
  sentence-transformers' `mine_hard_negatives`, makes no difference; all such columns are read;
- Tevatron: `{"query", "positive_passages": [{"docid", "title", "text"}], "negative_passages": [...]}`;
- labelled: `{"query", "passage", "label"}`, or lists `{"query", "passages": [...], "labels": [...]}`, in which 0 is a
  negative and anything above 0 a positive;
- several queries for one passage: `{"queries": [...], "passage"}`.

Each text may be an object with `text` and `title`; title and text are joined as in a corpus. A column that is not used
is named once in the log. A row whose `label`, `score`, `relevance` or the like (`docs/training.md` has the list) is 0
is refused, or, with `negatives_from_label`, makes negatives of the rows with the same query.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llm2comp.corpus.report import SkipCounter, choose_report, list_names
from llm2comp.corpus.text import open_text, uncompressed_name
from llm2comp.corpus.training_fields import JSON_SUFFIXES, TABLE_SUFFIXES
from llm2comp.corpus.training_rows import Triple, read_rows
from llm2comp.errors import CorpusError, SettingsError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["INSTRUCTIONS_FILE", "Triple", "TripleSet", "dataset_name", "read_rows", "read_triples"]

INSTRUCTIONS_FILE = "instructions.yaml"
_ROWS_PER_BATCH = 4096
_logger = logging.getLogger(__name__)


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
        negatives_from_label: Whether passages with a label of 0 are negatives; see `read_rows`.
    """

    name: str
    path: Path
    instruction: str | None
    negatives: int
    pairs: int
    max_negatives: int
    on_error: Literal["raise", "skip"] = "raise"
    negatives_from_label: bool = False

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
        options = {"negatives_from_label": self.negatives_from_label, "name_unused": False}
        for _, triple in read_rows(self.path, on_error=self.on_error, on_skip=lambda message: None, **options):
            if min(len(triple.negatives), self.max_negatives) == self.negatives:
                for positive in triple.positives:
                    yield (triple.query, positive, *triple.negatives[: self.negatives])


def read_triples(
    source: str | Path,
    *,
    max_negatives: int = 1,
    on_error: Literal["raise", "skip"] = "raise",
    on_skip: Callable[[str], None] | None = None,
    negatives_from_label: bool = False,
    name_unused: bool = True,
) -> list[TripleSet]:
    """Data sets of a training file or of a folder of such files, checked line by line but not loaded.

    A row with several positives gives one pair for each. Of its negatives, the first `max_negatives` are used. All rows
    of a data set must have the same columns, so pairs with different numbers of negatives are in different sets: no
    pair is lost, and no negative is invented.

    Args:
        source: A file, or a folder whose .jsonl, .ndjson and .json files are one data set each; if it has none, its
            .csv, .tsv and .parquet files are. `instructions.yaml` in the folder maps the stem of a file to the
            instruction for its queries; other files have none.
        max_negatives: Maximum number of hard negatives of a pair; 0 leaves them out.
        on_error: Whether a malformed row raises an error or is skipped.
        on_skip: With "skip", receives each message `file:line: what is wrong`.
        negatives_from_label: Passages with a label or score of 0 are negatives of all rows with the same query. If
            false, such a row is malformed.
        name_unused: Log a line that names columns that are not used.

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
        most = 0
        report = SkipCounter(choose_report(on_error, on_skip))
        options = {"negatives_from_label": negatives_from_label, "name_unused": name_unused}
        for _, triple in read_rows(file, on_error="skip", on_skip=report, **options):
            most = max(most, len(triple.negatives))
            counts[min(len(triple.negatives), max_negatives)] += len(triple.positives)
        if not counts:
            raise CorpusError(
                f'{file}: no pairs in it; expected lines such as {{"query": "…", "positive": "…", "negative": null}}'
                + report.summary()
            )
        if most > max_negatives > 0:
            _logger.warning(
                "%s: rows have up to %d negatives, of which the first %s used (max_negatives)",
                file,
                most,
                "is" if max_negatives == 1 else f"{max_negatives} are",
            )
        name = dataset_name(file)
        for negatives, pairs in sorted(counts.items()):
            label = f"{name}-{negatives}neg" if negatives else name
            sets.append(
                TripleSet(
                    label, file, instructions.get(name), negatives, pairs, max_negatives, on_error, negatives_from_label
                )
            )
    return sets


def dataset_name(path: Path) -> str:
    """Name of a file without folder and suffixes: `data/snli.jsonl.gz` -> `snli`."""
    return Path(uncompressed_name(path)).stem


def _list_files(folder: Path) -> list[Path]:
    """Training files of a folder: those of JSON lines, or else tables, which may be other things beside them."""
    lines, tables = (_files_of(folder, suffixes) for suffixes in (JSON_SUFFIXES, TABLE_SUFFIXES))
    files = lines or tables
    if not files:
        raise CorpusError(
            f"{folder}: no training file in it; expected .jsonl files (also .gz, .xz, .zst), or .csv, .tsv or .parquet "
            "files, with query, positive and negative"
        )
    if lines and tables:
        _logger.warning("%s: not read beside .jsonl files: %s", folder, list_names(path.name for path in tables))
    repeated = [name for name, count in Counter(map(dataset_name, files)).items() if count > 1]
    if repeated:
        raise CorpusError(
            f"{folder}: two files are named {repeated[0]}; data sets are named after their files, so rename one"
        )
    return files


def _files_of(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and Path(uncompressed_name(path)).suffix.lower() in suffixes and path.name != "pairs.json"
    )


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
