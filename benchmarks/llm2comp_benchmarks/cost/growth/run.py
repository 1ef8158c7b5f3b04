"""How costs grow: encoding with the number of tokens, memory tokens and length, memory with the corpus, a training step with the vocabulary."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost.growth.laws import LAWS, Law, growth_with_k
from llm2comp_benchmarks.cost.models import Shape
from llm2comp_benchmarks.cost.train.run import TrainBenchmark, open_steps
from llm2comp_benchmarks.cost.turns import RoundStats, in_turn
from llm2comp_benchmarks.cost.worker import THREAD_VARIABLES, Worker, run_process, watch_process
from llm2comp_benchmarks.results.record import result_record

__all__ = ["CURVES", "GrowthBenchmark", "run_growth_benchmark"]

CURVES = {
    "tokens": "counts",
    "k": "memory_tokens",
    "length": "lengths",
    "memory": "corpora",
    "vocabulary": "vocabularies",
}
"""Curve → the setting with its sizes."""
_JOBS = "llm2comp_benchmarks.cost.growth.jobs"
_TEXT = 64  # tokens of a text where the number of texts grows
_BEFORE_K = (
    32  # tokens before the memory tokens where their number grows: a batch of 32 texts fits one pass then, whatever k
)
_SHORT = 16  # tokens of a text of a stream
_TRAIN_TEXTS, _TRAIN_TOKENS = 4, 300

Measure = Callable[[int], float]
"""Cost of a size, measured once."""


@dataclass(frozen=True, slots=True)
class GrowthBenchmark:
    """What is measured; a curve without sizes is left out.

    Attributes:
        workdir: For a model and corpora, which are removed at the end.
        shape: Random weights of this shape; see `models.Shape`. Training steps are always of random weights.
        model: Name or folder of a model to be encoded with, in place of the shape's; None: none.
        counts: Texts of 64 tokens, memory tokens among them, for encode time against tokens.
        memory_tokens: k behind texts of 32 tokens, for encode time against k.
        lengths: Tokens of each text, memory tokens among them; the number of texts stays.
        texts: For the curves of k and of length.
        corpora: Short texts of 16 tokens in a stream, for peak memory against corpus size.
        vocabularies: For the time of a step of stage 1, 4 texts of 300 tokens.
        precision: `float32`, `bfloat16`, or `auto`: bfloat16 where the processor multiplies it.
        threads: In every process.
        rounds: In which every size is measured once.
        seed: Of weights and texts.
    """

    workdir: Path
    shape: str = "tiny"
    model: str | None = None
    counts: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    memory_tokens: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    lengths: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)
    texts: int = 128
    corpora: tuple[int, ...] = (4096, 8192, 16_384, 32_768, 65_536)
    vocabularies: tuple[int, ...] = (16_000, 32_000, 64_000, 128_000, 256_000)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int = 1
    rounds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in {"texts": 1, "threads": 1, "rounds": 1}.items():
            if getattr(self, name) < least:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected at least {least}")
        for name, least in {"counts": 1, "memory_tokens": 1, "lengths": 16, "corpora": 1, "vocabularies": 4}.items():
            sizes = getattr(self, name)
            if sizes and (min(sizes) < least or len(set(sizes)) < 3):
                raise SettingsError(
                    f"{name} are {', '.join(map(str, sizes))}: give three different ones or more, from {least} on, or "
                    "none"
                )
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise SettingsError(f"precision is {self.precision!r}; give auto, float32 or bfloat16")
        Shape.parse(self.shape)

    def sizes(self, curve: str) -> tuple[int, ...]:
        """The sizes of a curve, in order."""
        return tuple(sorted(set(getattr(self, CURVES[curve]))))


def run_growth_benchmark(
    settings: GrowthBenchmark, *, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """The record of a run: `curves`, each with its points (median, least and most of the rounds) and its law, and what the numbers rest on.

    Args:
        settings: What to measure.
        tell: Called with a line as each part begins.

    Raises:
        LLM2CompError: A part failed.
    """
    start = time.perf_counter()
    curves: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    if settings.vocabularies:
        with _stepping(settings, tell) as measure:
            curves["vocabulary"] = _curve(
                "vocabulary", LAWS["vocabulary"], "seconds", _in_rounds("vocabulary", measure, settings, tell)
            )
    if any(settings.sizes(curve) for curve in CURVES if curve != "vocabulary"):
        with _prepared(settings, tell) as (folder, facts):
            curves |= _encoding_curves(folder, facts, settings, tell)
    described = {name: value for name, value in asdict(settings).items() if name not in ("workdir", "model")}
    record = result_record([], {**described, "model": facts}, threads=settings.threads)
    return {
        "curves": {name: curves[name] for name in CURVES if name in curves},
        **record,
        "seconds": {"all": round(time.perf_counter() - start, 1)},
    }


def _in_rounds(
    curve: str, measure: Measure, settings: GrowthBenchmark, tell: Callable[[str], None]
) -> dict[int, list[float]]:
    """Costs of each size, one from every round."""
    costs: dict[int, list[float]] = {size: [] for size in settings.sizes(curve)}
    for number, size in in_turn(settings.sizes(curve), settings.rounds):
        tell(f"{curve}, round {number + 1} of {settings.rounds}: {size:,}")
        costs[size].append(measure(size))
    return costs


def _curve(name: str, law: Law, unit: str, costs: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    points = [
        {"at": size, **RoundStats.of(several).to_json(), "rounds": list(several)} for size, several in costs.items()
    ]
    return {"cost": unit, "points": points, "law": law.fit(list(costs), [point["median"] for point in points])}


@contextmanager
def _prepared(settings: GrowthBenchmark, tell: Callable[[str], None]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder with the model, and what it is."""
    folder = settings.workdir / "growth"
    shutil.rmtree(folder, ignore_errors=True)
    settings.workdir.mkdir(parents=True, exist_ok=True)
    try:
        tell("make a model")
        chosen = {"model": settings.model} if settings.model is not None else {"shape": settings.shape}
        given = json.dumps({"folder": str(folder), "seed": settings.seed, "plain": False, **chosen})
        yield (
            folder,
            run_process(
                "make a model",
                [sys.executable, "-m", "llm2comp_benchmarks.cost.models", "prepare", given],
                settings.threads,
            )["model"],
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _encoding_curves(
    folder: Path, facts: dict[str, Any], settings: GrowthBenchmark, tell: Callable[[str], None]
) -> dict[str, Any]:
    """The curves of encoding; `facts` gets the precision that was measured."""
    given = json.dumps({"folder": str(folder), "precision": settings.precision, "seed": settings.seed})
    curves = {}
    with Worker("encoding", [sys.executable, "-m", _JOBS, "encode", given], threads=settings.threads) as worker:
        facts["dtype"], own = worker.opened["dtype"], worker.opened["memory_tokens"]

        def seconds(**asked: int) -> float:
            return float(worker.ask("encode", **asked)["seconds"])

        if settings.counts:
            costs = _warm("tokens", lambda count: seconds(count=count, tokens=_TEXT - own), settings, tell)
            curves["tokens"] = _curve(
                "tokens", LAWS["tokens"], "seconds", {_TEXT * count: several for count, several in costs.items()}
            )
        if settings.memory_tokens:
            costs = _warm(
                "k", lambda k: seconds(count=settings.texts, tokens=_BEFORE_K, memory_tokens=k), settings, tell
            )
            curves["k"] = _curve("k", growth_with_k(_BEFORE_K), "seconds", costs)
        if settings.lengths:
            costs = _warm(
                "length",
                lambda length: seconds(count=settings.texts, tokens=length - own, memory_tokens=own),
                settings,
                tell,
            )
            curves["length"] = _curve("length", LAWS["length"], "seconds", costs)
        for size in settings.sizes("memory"):
            worker.ask("write_stream", file=str(folder / f"stream-{size}.jsonl"), count=size, tokens=_SHORT - own)
    if settings.corpora:
        peaks: dict[int, list[int]] = {size: [] for size in settings.sizes("memory")}
        costs = _in_rounds("memory", lambda size: _peak_of_stream(folder, size, settings, peaks[size]), settings, tell)
        curves["memory"] = _curve("memory", LAWS["memory"], "bytes", costs)
        for point in curves["memory"]["points"]:
            point["anonymous"] = RoundStats.of(peaks[point["at"]]).to_json()
    return curves


def _warm(
    curve: str, measure: Measure, settings: GrowthBenchmark, tell: Callable[[str], None]
) -> dict[int, list[float]]:
    """As `_in_rounds`, after each size was measured once, which does not count."""
    tell(f"{curve}: warm up")
    for size in settings.sizes(curve):
        measure(size)
    return _in_rounds(curve, measure, settings, tell)


def _peak_of_stream(folder: Path, size: int, settings: GrowthBenchmark, anonymous: list[int]) -> float:
    """Most bytes that a process held which encoded a corpus into a shard; those without pages of mapped files are added to the list."""
    output = folder / "shards"
    asked = {
        "folder": str(folder),
        "corpus": str(folder / f"stream-{size}.jsonl"),
        "output": str(output),
        "precision": settings.precision,
    }
    peaks = watch_process(
        [sys.executable, "-m", _JOBS, "stream", json.dumps(asked)],
        {name: str(settings.threads) for name in THREAD_VARIABLES},
    )
    shutil.rmtree(output)
    anonymous.append(peaks["anonymous"])
    return float(peaks["resident"])


@contextmanager
def _stepping(settings: GrowthBenchmark, tell: Callable[[str], None]) -> Iterator[Measure]:
    """Seconds of a step of stage 1 with a vocabulary of that size; each size has a process of its own."""
    numbers = dict.fromkeys(settings.sizes("vocabulary"), 0)
    with ExitStack() as stack:
        workers: dict[int, Worker] = {}

        def step(size: int) -> float:
            numbers[size] += 1
            return float(workers[size].ask("step", number=numbers[size])["seconds"])

        for size in numbers:
            tell(f"vocabulary {size:,}: open and warm up")
            workers[size] = stack.enter_context(_open_step(size, settings))
            step(size)
        yield step


def _open_step(vocabulary: int, settings: GrowthBenchmark) -> Worker:
    from llm2comp.backbone.hardware import inference_dtype

    precision = str(inference_dtype(settings.precision, "cpu")).removeprefix("torch.")
    steps = TrainBenchmark(
        shape=settings.shape, texts=_TRAIN_TEXTS, tokens=_TRAIN_TOKENS, threads=settings.threads, seed=settings.seed
    )
    return open_steps(f"llm2comp {precision}", steps, vocabulary)
