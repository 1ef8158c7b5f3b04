"""Training pairs derived from raw texts, for contrastive training without labels.

A small encoder begins as little more than a bag of subwords. What it must learn, and the kinds of pairs that teach it:

- **which words matter**: `title-lead` and `keywords-passage` (a name or a few content words ask for a passage),
  `sentence-view` (the same sentence without filler words, but with its names; a neighbouring sentence is the negative);
- **questions look unlike their answers**: `question-passage` asks, by rules, for a date, place, agent, number, reason
  or subject of one sentence; the positive is the passage around it, the negative another passage of the article under
  the same title line, so that the title alone does not decide. `heading-section` does so for the topic of a section;
- **related texts share few words**: `sentence-rest` takes a sentence out of its passage (inverse cloze) and keeps it in
  one of ten passages, so that a literal match still counts; `lead-passage` and `sentence-next` pair texts about one
  subject;
- **statements and scientific abstracts**: `science-rest`, and from ready files the conclusion of a study with its
  abstract (`NAME-claim`) and sentences of medical prose with the rest (`NAME-sentence`);
- **everyday sentences**: ready sentence sets in both directions, and each sentence reworded (`NAME-view`);
- **documentation**: `summary-body` (summary line, body without the names), `howto-docstring` (the same in a user's
  words), `part-docstring` (inverse cloze), `name-docstring` (words of the name) for docstrings without a body;
  `synopsis-description` and `part-description` do so for descriptions of packages;
- **meanings of words**: `words-definition` (the words of a synset of WordNet ask for its definition, the negative is a
  related one) and `example-definition` (a word in a sentence; the negative defines another meaning of the word).

Passages vary in length, and half of them begin with a title line, as documents of a corpus do; some queries are in
lower case, without final punctuation or lack a word. Every kind has a file of its own: in a batch of one kind, all
negatives have the form of the positive, so the form gives nothing away. Within a file the order is that of a hash, so
pairs of one document, which could be false negatives of one another, are far apart.
"""

import gzip
import hashlib
import io
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TextIO

from llm2comp.atomic import staged_folder
from llm2comp.corpus.read import read_corpus
from llm2comp.errors import SettingsError, TrainingError
from llm2comp.training.pairs.articles import article_pairs
from llm2comp.training.pairs.docstrings import docstring_pairs
from llm2comp.training.pairs.guard import EvaluationTexts
from llm2comp.training.pairs.packages import package_pairs
from llm2comp.training.pairs.ready import ready_pairs
from llm2comp.training.pairs.sentences import letters
from llm2comp.training.pairs.settings import PAIR_LIMITS, Pair, PairSettings
from llm2comp.training.pairs.wordnet import wordnet_pairs

__all__ = ["PAIR_LIMITS", "Pair", "PairSettings", "derive_pairs", "iterate_pairs"]

_BUCKETS = 64
_logger = logging.getLogger(__name__)


def iterate_pairs(settings: PairSettings, *, refused: Counter[str] | None = None) -> Iterator[Pair]:
    """All derived pairs, corpus by corpus in the order of the settings; equal settings and texts give equal pairs.

    Args:
        settings: Sources, numbers and lengths of pairs.
        refused: Gets the number of pairs left out, by kind, because a text is too close to one of `settings.excluded`.
    """
    evaluation = EvaluationTexts(settings.excluded)
    for pair in _iterate_all(settings):
        query, positive = letters(pair.query), letters(pair.positive)
        if query and positive and query != positive:
            if not any(map(evaluation.is_near, (pair.query, pair.positive, pair.negative or ""))):
                yield pair
            elif refused is not None:
                refused[pair.kind] += 1


def _iterate_all(settings: PairSettings) -> Iterator[Pair]:
    for source in settings.articles:
        for document in read_corpus(source, csv_strings=True):
            yield from article_pairs(document, settings)
    if settings.docstrings:
        documents = chain.from_iterable(map(read_corpus, settings.docstrings))
        yield from docstring_pairs(documents, settings)
    yield from package_pairs(settings.packages, settings)
    if settings.wordnet:
        yield from wordnet_pairs(settings.wordnet, settings)
    for source in settings.ready:
        yield from ready_pairs(Path(source), settings)


def derive_pairs(settings: PairSettings, output: Path) -> dict[str, int]:
    """Write one `KIND.jsonl.gz` per kind, shuffled over all documents, and `pairs.json` with the settings and counts.

    Counts are of the pairs written, and of those refused because a text is too close to an evaluation text.

    Lines are `{"query", "positive", "negative" (where there is one), "source", "answer" (of questions)}`. A pair met
    twice is written once. Memory holds one of 64 buckets at a time, so the corpora may be larger than it. Everything is
    written to a folder beside the output, which takes its name when all is done.

    Returns:
        Pairs per kind.

    Raises:
        SettingsError: The output exists already and is not an empty folder.
        CorpusError: A corpus cannot be read.
        TrainingError: The output cannot be written, or another process is writing it.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SettingsError(f"{output} exists already; delete it or name another output folder")
    _logger.info("deriving pairs into %s", output)
    with staged_folder(output, kind="set of pairs", error=TrainingError) as unfinished:
        buckets = unfinished / "buckets"
        buckets.mkdir()
        refused: Counter[str] = Counter()
        _scatter(iterate_pairs(settings, refused=refused), settings.seed, buckets)
        counts = _gather(buckets, unfinished)
        shutil.rmtree(buckets)
        record = {"settings": asdict(settings), "counts": counts, "refused": dict(sorted(refused.items()))}
        (unfinished / "pairs.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    _logger.info("derived %s pairs; %s left out as too near to evaluation texts", *map(_count, (counts, refused)))
    return counts


def _count(pairs: Mapping[str, int]) -> str:
    return f"{sum(pairs.values()):,}"


def _scatter(pairs: Iterable[Pair], seed: int, folder: Path) -> None:
    """Distributes pairs over buckets by a hash of their texts, which is also their order in the shuffled files."""
    with ExitStack() as stack:
        files = [
            stack.enter_context((folder / f"{number:02d}").open("w", encoding="utf-8", newline="\n"))
            for number in range(_BUCKETS)
        ]
        for pair in pairs:
            texts = f"{seed}\0{pair.kind}\0{pair.query}\0{pair.positive}"
            key = hashlib.blake2b(texts.encode("utf-8", "replace"), digest_size=8).hexdigest()
            row = {"query": pair.query, "positive": pair.positive, "negative": pair.negative, "source": pair.source}
            row = {name: value for name, value in (*row.items(), ("answer", pair.answer)) if value is not None}
            files[int(key[:2], 16) * _BUCKETS // 256].write(
                f"{key}\t{pair.kind}\t{json.dumps(row, ensure_ascii=False)}\n"
            )


def _gather(buckets: Path, output: Path) -> dict[str, int]:
    counts: Counter[str] = Counter()
    files: dict[str, TextIO] = {}
    with ExitStack() as stack:
        for bucket in sorted(buckets.iterdir()):
            previous = ""
            with open(bucket, encoding="utf-8", newline="\n") as lines:
                for line in sorted(lines):
                    key, kind, row = line.split("\t", 2)
                    if key != previous:
                        if kind not in files:
                            files[kind] = _open_packed(output / f"{kind}.jsonl.gz", stack)
                        files[kind].write(row)
                        counts[kind] += 1
                    previous = key
    return dict(sorted(counts.items()))


def _open_packed(path: Path, stack: ExitStack) -> TextIO:
    """Opens a gzip text file without name and time stamp, so that equal pairs give equal bytes."""
    raw = stack.enter_context(path.open("wb"))
    packed = stack.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6))
    return stack.enter_context(io.TextIOWrapper(packed, encoding="utf-8", newline="\n"))
