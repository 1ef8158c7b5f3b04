"""Data of stages 2 and 3: sentences of running text, and pairs with hard negatives, as data sets of the trainer."""

import logging
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray

from llm2comp.corpus.triples import TripleSet, dataset_name, read_triples
from llm2comp.errors import SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training.batches import enough_rows
from llm2comp.training.pairs.sentences import split_sentences
from llm2comp.training.run_rows import RowSet
from llm2comp.training.settings import ContrastiveSettings
from llm2comp.training.sources import training_documents

__all__ = ["ContrastiveData", "distinct_sentences", "SampledTexts", "read_data", "sample_texts"]

_SENTENCE_WORDS = (5, 60)
_SAMPLED_ROWS = 200
_DIGESTED_ROWS = 1000
_logger = logging.getLogger(__name__)


class ContrastiveData(NamedTuple):
    """Rows of each data set by name, and the instructions of its queries."""

    training: DatasetDict
    heldout: DatasetDict | None
    prompts: dict[str, dict[str, str]]

    @property
    def row_sets(self) -> dict[str, RowSet]:
        """The training rows as those of a run."""
        return {name: RowSet(len(rows), partial(_digest, rows)) for name, rows in self.training.items()}


def _digest(rows: Dataset, count: int) -> str:
    """Digest of the texts of the first rows."""
    digest = blake2b(digest_size=16)
    for batch in rows.select(range(count)).iter(_DIGESTED_ROWS):
        for name in sorted(batch):
            digest.update("\0".join(batch[name]).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def read_data(settings: ContrastiveSettings, query_instruction: str) -> ContrastiveData:
    """Training and held-out rows of a stage.

    Args:
        settings: Sentences if they name corpora, else pairs.
        query_instruction: Of the model; queries of a data set without an instruction get it.

    Raises:
        CorpusError: If the data cannot be read.
        SettingsError: If there are fewer rows than a batch.
    """
    return _sentences(settings) if settings.corpora else _pairs(settings, query_instruction)


class SampledTexts(NamedTuple):
    """Lengths of some texts of a data set, and its longest one."""

    lengths: NDArray[np.int64]
    """Tokens of each text, memory tokens included, (rows, texts of a row)."""
    longest: str
    task: str
    """Whether the longest text is a `query` or a `document`."""


def sample_texts(model: LLM2Comp, data: ContrastiveData, *, seed: int) -> list[SampledTexts]:
    """Lengths of the texts of some rows of each data set."""
    chance, samples = random.Random(seed), []
    for name, rows in data.training.items():
        chosen = rows.select(sorted(chance.sample(range(len(rows)), min(_SAMPLED_ROWS, len(rows)))))
        prompt, names = data.prompts.get(name, {}).get("anchor", ""), chosen.column_names
        texts = {column: [(prompt if column == "anchor" else "") + text for text in chosen[column]] for column in names}
        columns = [_tokens(model, texts[column], _task(column)) for column in names]
        lengths = np.stack(columns, axis=1) + model.memory_tokens
        row, place = np.unravel_index(lengths.argmax(), lengths.shape)
        samples.append(SampledTexts(lengths, texts[names[place]][row], _task(names[place])))
    return samples


def _task(column: str) -> str:
    return "query" if column == "anchor" else "document"


def _tokens(model: LLM2Comp, texts: Sequence[str], task: str) -> NDArray[np.int64]:
    limit = model.encoder.task_limits.get(task)
    return np.array([len(ids) for ids in model.encoder.token_ids(texts, limit)])


def _pairs(settings: ContrastiveSettings, query_instruction: str) -> ContrastiveData:
    """Pairs of each data set; queries of a set without an instruction get the model's, as they do in use."""
    training, heldout, prompts = {}, {}, {}
    options: dict[str, Any] = {
        "max_negatives": settings.max_negatives,
        "negatives_from_label": settings.negatives_from_label,
    }
    triples = [each for source in settings.pairs for each in read_triples(source, **options)]
    paths = sorted({each.path for each in triples})
    files = [dataset_name(path) for path in paths]
    if repeated := sorted({name for name in files if files.count(name) > 1}):
        raise SettingsError(
            f"pairs hold two files named {', '.join(repeated)}; data sets are told apart by this name, so rename one"
        )
    if unknown := sorted(set(settings.mixture) - set(files)):
        raise SettingsError(f"mixture names {', '.join(unknown)}, but pairs hold {', '.join(files)}")
    for each in triples:
        if not (share := settings.mixture.get(dataset_name(each.path), 1.0)):
            continue
        rows = each.load()
        kept = settings.heldout_rows if len(rows) >= 10 * settings.heldout_rows else 0
        training[each.name] = _repeat(rows.select(range(kept, len(rows))), share, settings.seed)
        if kept:
            heldout[each.name] = rows.select(range(kept))
        if instruction := each.instruction or query_instruction:
            prompts[each.name] = {"anchor": instruction}
    used = _large_enough(training, settings, _descriptions(triples))
    _report_pairs(used, heldout, training, settings)
    return ContrastiveData(used, DatasetDict(heldout) or None, prompts)


def _report_pairs(
    used: DatasetDict, heldout: dict[str, Dataset], training: dict[str, Dataset], settings: ContrastiveSettings
) -> None:
    """Logs how many pairs are trained on, held out, and left out."""
    pairs, kept = sum(map(len, used.values())), sum(map(len, heldout.values()))
    total = sum(map(len, training.values()))
    notes = [f"{pairs:,} pairs in {len(used)} data set{'s' * (len(used) != 1)}"]
    notes += [f"held out for the held-out loss: {kept:,}"] if kept else []
    notes += (
        [f"of data sets too small for a batch of {settings.batch_size}: {total - pairs:,}"] if total > pairs else []
    )
    unused = sorted(name for name, share in settings.mixture.items() if not share)
    notes += [f"left out by mixture: {', '.join(unused)}"] if unused else []
    _logger.info("%s", "; ".join(notes))


def _descriptions(triples: list[TripleSet]) -> dict[str, tuple[str, str]]:
    """By data set, the name of its file and which of the file's pairs it has: all of them, or some by negatives."""
    sets = Counter(each.path for each in triples)
    described = {}
    for each in triples:
        count = each.negatives
        which = f" with {count} negative{'s' * (count > 1)}" if count else " without a negative"
        described[each.name] = dataset_name(each.path), which if sets[each.path] > 1 else ""
    return described


def _large_enough(
    training: dict[str, Dataset], settings: ContrastiveSettings, descriptions: dict[str, tuple[str, str]]
) -> DatasetDict:
    """The data sets that fill at least one batch, because every batch is drawn from one set."""
    enough_rows(max(map(len, training.values()), default=0), settings.batch_size, settings.pairs)
    for name, rows in training.items():
        file, which = descriptions[name]
        if len(rows) < settings.batch_size:
            _logger.warning(
                "%s is not trained on%s: its %d pairs%s do not fill a batch of %d",
                file,
                " as a whole" if which else "",
                len(rows),
                which,
                settings.batch_size,
            )
    return DatasetDict({name: rows for name, rows in training.items() if len(rows) >= settings.batch_size})


def _repeat(rows: Dataset, share: float, seed: int) -> Dataset:
    """The rows `share` times; a fraction is a random sample."""
    whole, part = divmod(share, 1.0)
    indices = list(range(len(rows))) * int(whole)
    indices += random.Random(seed).sample(range(len(rows)), int(part * len(rows)))
    return rows.select(indices)


def _sentences(settings: ContrastiveSettings) -> ContrastiveData:
    limit = settings.steps * settings.batch_size + settings.heldout_rows
    counts: Counter[str] = Counter()
    sentences = list(islice(distinct_sentences(settings.corpora, counts), limit))
    least, most = _SENTENCE_WORDS
    reasons = (f"under {least} or over {most} words", "repeated")
    left_out = [f"{reason}: {counts[reason]:,}" for reason in reasons if counts[reason]]
    enough = [f"no more are needed for {settings.steps} updates"] if len(sentences) == limit else []
    used = f"{', '.join(settings.corpora)}: {len(sentences):,} sentences"
    _logger.info("%s", "; ".join([used, *left_out, *enough]))
    enough_rows(len(sentences) - settings.heldout_rows, settings.batch_size, settings.corpora)
    rows = Dataset.from_dict({"anchor": sentences, "positive": sentences})
    kept = settings.heldout_rows
    return ContrastiveData(
        DatasetDict(sentences=rows.select(range(kept, len(rows)))),
        DatasetDict(sentences=rows.select(range(kept))) if kept else None,
        {},
    )


def distinct_sentences(corpora: Sequence[str], counts: Counter[str] | None = None) -> Iterator[str]:
    """Sentences of 5 to 60 words, each once, without held-out docstrings; `counts` gets those left out, by reason."""
    least, most = _SENTENCE_WORDS
    seen: set[bytes] = set()
    for source in corpora:
        for document in training_documents(source):
            for sentence in split_sentences(document.text):
                digest = blake2b(sentence.encode(), digest_size=8).digest()
                fits = least <= len(sentence.split()) <= most
                if fits and digest not in seen:
                    seen.add(digest)
                    yield sentence
                elif counts is not None:
                    counts["repeated" if fits else f"under {least} or over {most} words"] += 1
