"""Folders of training files with hard negatives: one file for each that is read, written whole or not at all."""

import gzip
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from llm2comp.atomic import write_file
from llm2comp.checked_json import JsonFormat, take, take_count
from llm2comp.corpus.training_fields import read_fields
from llm2comp.corpus.triples import INSTRUCTIONS_FILE, dataset_name, read_rows, read_triples
from llm2comp.errors import SettingsError, TrainingError
from llm2comp.training.negatives.mine import PairRow, mine_rows
from llm2comp.training.negatives.settings import MiningSettings
from llm2comp.training.run_folder import changed_fields, sole_user
from llm2comp.truncation import count_truncated

if TYPE_CHECKING:
    from llm2comp.model import LLM2Comp

__all__ = ["FileCounts", "mine_hard_negatives"]

_logger = logging.getLogger(__name__)
_RECORD = "pairs.json"
_FORMAT = JsonFormat("record of mined negatives", SettingsError, "give another output folder, or delete this one")
_LINES_AT_ONCE = 1024


class FileCounts(NamedTuple):
    """What was mined for a file.

    Attributes:
        rows: Rows read, and written.
        with_negatives: Rows that have a negative, mined or not.
        mined: Negatives added to the rows.
        too_close: Passages that the margin dropped from the ranks considered, summed over queries.
    """

    rows: int
    with_negatives: int
    mined: int
    too_close: int


@dataclass(frozen=True, slots=True)
class _Source:
    path: Path
    instruction: str | None
    sha256: str


def mine_hard_negatives(
    model: "LLM2Comp",
    pairs: Sequence[str | Path],
    output: str | Path,
    settings: MiningSettings | None = None,
    *,
    progress: Callable[[str, int], None] = lambda phase, count: None,
    on_file: Callable[[str, FileCounts], None] = lambda name, counts: None,
) -> dict[str, FileCounts]:
    """Writes training files again with hard negatives, each as `NAME.jsonl.gz` in one folder.

    Rows are `{"query", "positive", "negative", "source"}`, in the order of the file; a row for which no negative is
    found has no "negative", and "source" is there where the row had it. A folder's instructions are taken over.
    `pairs.json` records settings, model and counts. A file that is done stays done: after an interruption, the same
    call goes on with the next one. Further files may be added.

    Args:
        model: Ranks the passages.
        pairs: Training files and folders of them, as for stage 3.
        output: Folder of the new files, which stage 3 reads.
        settings: Numbers of negatives, ranks and margin; None: the defaults.
        progress: Receives what is being done, such as "pubmedqa: queries encoded", and the number of texts done.
        on_file: Receives name and counts of each file, once it is done or if it was done before.

    Returns:
        Counts by name of the file.

    Raises:
        CorpusError: A file is missing, malformed or holds no pairs.
        SettingsError: The folder holds something else or was begun with another model, other settings or other files;
            or two files have one name.
        TrainingError: The folder cannot be written, another process is writing it, or the model gives a vector that is
            not finite.
    """
    settings = settings or MiningSettings()
    output = Path(output)
    sources = _find_sources(pairs, output, settings)
    folder = _Folder(output, model.fingerprint, settings)
    try:
        folder.read(sources)
        with sole_user(output):
            folder.read(sources)  # again, because another process may have written to it
            folder.write_record()
            for name, source in sources.items():
                if name not in folder.counts:
                    _mine(model, folder, name, source, progress)
                on_file(name, folder.counts[name])
    except OSError as error:
        raise TrainingError(f"{output}: cannot be written ({error.strerror}); give another output folder") from error
    return {name: folder.counts[name] for name in sources}


def _find_sources(pairs: Sequence[str | Path], output: Path, settings: MiningSettings) -> dict[str, _Source]:
    """The files by name. All are read, so that a malformed one is reported before anything is encoded."""
    if not pairs:
        raise SettingsError("no training files; give at least one file, or folder of files, of pairs")
    read = partial(read_triples, max_negatives=0, negatives_from_label=settings.negatives_from_label, name_unused=False)
    instructions = {each.path: each.instruction for source in pairs for each in read(source)}
    names = Counter(map(dataset_name, instructions))
    if repeated := [name for name, count in names.items() if count > 1]:
        raise SettingsError(f"two files are named {repeated[0]}; each is written under its name, so rename one")
    if inside := [path for path in instructions if path.resolve().parent == output.resolve()]:
        raise SettingsError(f"{inside[0]} is in the output folder; give another output folder")
    return {dataset_name(path): _Source(path, instruction, _digest(path)) for path, instruction in instructions.items()}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Folder:
    """The output folder, with the counts of the files in it."""

    def __init__(self, path: Path, model: str, settings: MiningSettings) -> None:
        self.path = path
        self.settings = settings
        self.counts: dict[str, FileCounts] = {}
        self._model = model
        self._files: dict[str, dict[str, Any]] = {}

    def read(self, sources: Mapping[str, _Source]) -> None:
        """Reads which files are done.

        Raises:
            SettingsError: The folder is not one of mined negatives, or was begun with something else.
        """
        record = self.path / _RECORD
        if not record.exists():
            if self.path.is_dir() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
                raise SettingsError(f"{self.path} holds other files; give another output folder")
            return
        content = _FORMAT.read(record)
        with _FORMAT.parsing(record):
            self._files = take(content, "files", dict)
            self.counts = {
                name: FileCounts(*(take_count(entry, field) for field in FileCounts._fields))
                for name, entry in self._files.items()
                if self._file(name).is_file()
            }
            before = {"settings": take(content, "settings", dict), "model": take(content, "model", str)}
        self._check(before, sources)

    def _check(self, before: dict[str, Any], sources: Mapping[str, _Source]) -> None:
        changed = changed_fields(before["settings"], asdict(self.settings))
        if before["model"] != self._model:
            changed.append("another model, or another maximum length of it")
        for name, source in sources.items():
            entry = self._files.get(name, {"sha256": source.sha256, "instruction": source.instruction})
            if (entry.get("sha256"), entry.get("instruction")) != (source.sha256, source.instruction):
                changed.append(f"another content or instruction of {name}")
        if changed:
            raise SettingsError(
                f"{self.path} was begun with other settings: {'; '.join(changed)}. Give those again, or another output "
                f"folder, or delete {self.path} to mine again"
            )

    def add(self, name: str, source: _Source, lines: Iterator[str], counts: FileCounts) -> None:
        """Writes a file, then the record and the instructions that name it."""
        write_file(self._file(name), _pack(lines))
        self.counts[name] = counts
        self._files[name] = {"sha256": source.sha256, "instruction": source.instruction, **counts._asdict()}
        instructions = {stem: entry["instruction"] for stem, entry in self._files.items() if entry["instruction"]}
        if instructions:
            write_file(self.path / INSTRUCTIONS_FILE, [yaml.safe_dump(instructions, allow_unicode=True)])
        self.write_record()

    def write_record(self) -> None:
        """Writes model, settings and counts."""
        record = {"settings": asdict(self.settings), "model": self._model, "files": self._files}
        write_file(self.path / _RECORD, [json.dumps(record, indent=2, ensure_ascii=False), "\n"])

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.jsonl.gz"


def _mine(model: "LLM2Comp", folder: _Folder, name: str, source: _Source, progress: Callable[[str, int], None]) -> None:
    rows = list(islice(_read(source.path, folder.settings), folder.settings.limit))
    with count_truncated() as truncated:
        mined = mine_rows(
            model,
            rows,
            folder.settings,
            instruction=source.instruction,
            name=name,
            progress=lambda phase, count: progress(f"{name}: {phase}", count),
        )
    if truncated.cut:
        _logger.info(
            "%s: %d of %d texts were cut to their first %d tokens",
            name,
            truncated.cut,
            truncated.texts,
            truncated.tokens,
        )
    counts = FileCounts(
        rows=len(rows),
        with_negatives=sum(map(bool, mined.negatives)),
        mined=sum(map(len, mined.negatives)) - sum(len(row.triple.negatives) for row in rows),
        too_close=mined.too_close,
    )
    folder.add(name, source, map(_to_line, rows, mined.negatives), counts)


def _read(path: Path, settings: MiningSettings) -> Iterator[PairRow]:
    """Rows with their sources; a row with several queries is one row for each."""
    fields = read_fields(path, on_error="skip", on_skip=lambda message: None)
    line, source = 0, None
    for number, triple in read_rows(path, negatives_from_label=settings.negatives_from_label, name_unused=False):
        while line < number:
            line, row = next(fields)
            source = row.get("source")
        yield PairRow(triple, source if isinstance(source, str | int) else None)


def _to_line(row: PairRow, negatives: tuple[str, ...]) -> str:
    content: dict[str, Any] = {"query": row.triple.query, "positive": _one_or_list(row.triple.positives)}
    if negatives:
        content["negative"] = _one_or_list(negatives)
    if row.source is not None:
        content["source"] = row.source
    return json.dumps(content, ensure_ascii=False) + "\n"


def _one_or_list(texts: tuple[str, ...]) -> str | list[str]:
    return texts[0] if len(texts) == 1 else list(texts)


def _pack(lines: Iterator[str]) -> Iterator[bytes]:
    """The lines as gzip members without time stamps, so that equal lines give equal bytes."""
    while part := "".join(islice(lines, _LINES_AT_ONCE)):
        yield gzip.compress(part.encode("utf-8"), mtime=0)
