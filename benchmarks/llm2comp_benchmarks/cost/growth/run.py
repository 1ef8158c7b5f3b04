"""How costs grow: encode time with tokens, memory tokens and length; memory with the corpus; training with vocabulary.

Each curve is measured at several sizes and fitted by its law; see `laws`.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost.checks import check_at_least, check_precision
from llm2comp_benchmarks.cost.growth.laws import LAWS, Law, growth_with_k
from llm2comp_benchmarks.cost.models import run_model_job
from llm2comp_benchmarks.cost.processes import module_command, thread_limits, watch_process
from llm2comp_benchmarks.cost.shapes import Shape
from llm2comp_benchmarks.cost.turns import RoundStats, in_turn
from llm2comp_benchmarks.cost.worker import Worker
from llm2comp_benchmarks.results.record import result_record

__all__ = ["CURVES", "GrowthBenchmark", "run_growth_benchmark"]

CURVES = {
    "tokens": "counts",
    "k": "memory_tokens",
    "length": "lengths",
    "memory": "corpora",
    "vocabulary": "vocabularies",
}
"""The setting with the sizes of each curve."""
_JOBS = "llm2comp_benchmarks.cost.growth.jobs"
_TRAINING_JOBS = "llm2comp_benchmarks.cost.train.jobs"  # started as a process, not imported
_TEXT_TOKENS = 64  # of a text where the number of texts grows
_TOKENS_BEFORE_K = 32  # before the memory tokens where k grows: a batch of 32 texts then fits one pass, whatever k
_STREAM_TOKENS = 16  # of a text of a stream
_TRAIN_TEXTS, _TRAIN_TOKENS = 4, 300

Measure = Callable[[int], float]
"""Measures the cost of a size once."""
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class GrowthBenchmark:
    """What is measured; a curve without sizes is left out.

    Attributes:
        workdir: Folder for a model and corpora, which are removed at the end.
        shape: Random weights of this shape; see `shapes.Shape`. Training steps always use random weights.
        model: Name or folder of a model to encode with instead; None: the shape.
        counts: Numbers of texts of 64 tokens (memory tokens among them), for encode time against tokens.
        memory_tokens: k behind texts of 32 tokens, for encode time against k.
        lengths: Tokens of each text (memory tokens among them), for encode time against length.
        texts: Number of texts for the curves of k and of length.
        corpora: Numbers of texts of 16 tokens in a stream, for peak memory against corpus size.
        vocabularies: For the time of a step of stage 1 on 4 texts of 300 tokens.
        precision: `float32`, `bfloat16`, or `auto`: bfloat16 where the processor multiplies it.
        threads: In every process.
        rounds: In each of which every size is measured once.
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
        check_at_least(self, {"texts": 1, "threads": 1, "rounds": 1})
        for name, least in {"counts": 1, "memory_tokens": 1, "lengths": 16, "corpora": 1, "vocabularies": 4}.items():
            sizes = getattr(self, name)
            if sizes and (min(sizes) < least or len(set(sizes)) < 3):
                raise SettingsError(
                    f"{name} are {', '.join(map(str, sizes))}: give three different ones or more, from {least} on, or "
                    "none"
                )
        check_precision(self.precision)
        Shape.parse(self.shape)

    def sizes(self, curve: str) -> tuple[int, ...]:
        """The sizes of a curve, in order."""
        return tuple(sorted(set(getattr(self, CURVES[curve]))))


def run_growth_benchmark(settings: GrowthBenchmark, *, tell: Tell = lambda line: None) -> dict[str, Any]:
    """The record of a run: `curves`, each with its points and its law, and what the numbers rest on.

    A point has the median, the least and the most of the rounds.

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
        with _training_steps(settings, tell) as measure:
            costs = _in_rounds("vocabulary", measure, settings, tell)
        curves["vocabulary"] = _curve(LAWS["vocabulary"], "seconds", costs)
    if any(settings.sizes(curve) for curve in CURVES if curve != "vocabulary"):
        with _prepared(settings, tell) as (folder, facts):
            curves |= _encoding_curves(folder, facts, settings, tell)
            curves |= _memory_curve(folder, settings, tell)
    described = {name: value for name, value in asdict(settings).items() if name not in ("workdir", "model")}
    record = result_record([], {**described, "model": facts}, threads=settings.threads)
    return {
        "curves": {name: curves[name] for name in CURVES if name in curves},
        **record,
        "seconds": {"all": round(time.perf_counter() - start, 1)},
    }


def _in_rounds(curve: str, measure: Measure, settings: GrowthBenchmark, tell: Tell) -> dict[int, list[float]]:
    """Costs of each size, one from every round."""
    costs: dict[int, list[float]] = {size: [] for size in settings.sizes(curve)}
    for number, size in in_turn(settings.sizes(curve), settings.rounds):
        tell(f"{curve}, round {number + 1} of {settings.rounds}: {size:,}")
        costs[size].append(measure(size))
    return costs


def _after_warm_up(curve: str, measure: Measure, settings: GrowthBenchmark, tell: Tell) -> dict[int, list[float]]:
    """As `_in_rounds`, after one measurement of each size that is not counted."""
    tell(f"{curve}: warm up")
    for size in settings.sizes(curve):
        measure(size)
    return _in_rounds(curve, measure, settings, tell)


def _curve(law: Law, unit: str, costs: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    points = [{"at": size, **RoundStats.of(rounds).to_json(), "rounds": list(rounds)} for size, rounds in costs.items()]
    return {"cost": unit, "points": points, "law": law.fit(list(costs), [point["median"] for point in points])}


@contextmanager
def _prepared(settings: GrowthBenchmark, tell: Tell) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder with the model, and facts about the model; the folder is removed afterwards."""
    folder = settings.workdir / "growth"
    shutil.rmtree(folder, ignore_errors=True)
    settings.workdir.mkdir(parents=True, exist_ok=True)
    chosen = {"model": settings.model} if settings.model is not None else {"shape": settings.shape}
    try:
        tell("make a model")
        arguments = {"folder": str(folder), "seed": settings.seed, "plain": False, **chosen}
        yield folder, run_model_job("make a model", "prepare", settings.threads, **arguments)["model"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _encoding_curves(folder: Path, facts: dict[str, Any], settings: GrowthBenchmark, tell: Tell) -> dict[str, Any]:
    """The curves of encode time; writes the corpora of the memory curve, and the measured precision into `facts`."""
    command = module_command(_JOBS, "encode", folder=str(folder), precision=settings.precision, seed=settings.seed)
    curves = {}
    with Worker("encoding", command, threads=settings.threads) as worker:
        facts["dtype"], model_k = worker.opened["dtype"], worker.opened["memory_tokens"]

        def seconds(count: int, tokens: int, k: int | None = None) -> float:
            return float(worker.ask("encode", count=count, tokens=tokens, memory_tokens=k)["seconds"])

        measures: dict[str, tuple[Law, Measure]] = {
            "tokens": (LAWS["tokens"], lambda count: seconds(count, _TEXT_TOKENS - model_k)),
            "k": (growth_with_k(_TOKENS_BEFORE_K), lambda k: seconds(settings.texts, _TOKENS_BEFORE_K, k)),
            "length": (LAWS["length"], lambda length: seconds(settings.texts, length - model_k, model_k)),
        }
        for name, (law, measure) in measures.items():
            if settings.sizes(name):
                costs = _after_warm_up(name, measure, settings, tell)
                if name == "tokens":
                    costs = {_TEXT_TOKENS * count: rounds for count, rounds in costs.items()}
                curves[name] = _curve(law, "seconds", costs)
        for size in settings.sizes("memory"):
            worker.ask("write_stream", file=str(_stream(folder, size)), count=size, tokens=_STREAM_TOKENS - model_k)
    return curves


def _stream(folder: Path, size: int) -> Path:
    return folder / f"stream-{size}.jsonl"


def _memory_curve(folder: Path, settings: GrowthBenchmark, tell: Tell) -> dict[str, Any]:
    """The curve of peak memory by corpus size; its points also have `anonymous`, without pages of mapped files."""
    if not settings.corpora:
        return {}
    anonymous: dict[int, list[int]] = {size: [] for size in settings.sizes("memory")}

    def resident(size: int) -> float:
        peaks = _peaks_of_stream(folder, size, settings)
        anonymous[size].append(peaks["anonymous"])
        return float(peaks["resident"])

    curve = _curve(LAWS["memory"], "bytes", _in_rounds("memory", resident, settings, tell))
    for point in curve["points"]:
        point["anonymous"] = RoundStats.of(anonymous[point["at"]]).to_json()
    return {"memory": curve}


def _peaks_of_stream(folder: Path, size: int, settings: GrowthBenchmark) -> dict[str, int]:
    """Peak memory in bytes of a process that encodes a corpus into a shard; see `watch_process`."""
    output = folder / "shards"
    files = {"folder": str(folder), "corpus": str(_stream(folder, size)), "output": str(output)}
    command = module_command(_JOBS, "stream", precision=settings.precision, **files)
    peaks = watch_process(command, thread_limits(settings.threads))
    shutil.rmtree(output)
    return peaks


@contextmanager
def _training_steps(settings: GrowthBenchmark, tell: Tell) -> Iterator[Measure]:
    """Measures seconds of a step of stage 1 by vocabulary; each vocabulary has a process of its own."""
    numbers = dict.fromkeys(settings.sizes("vocabulary"), 0)
    with ExitStack() as stack:
        workers: dict[int, Worker] = {}

        def step(size: int) -> float:
            numbers[size] += 1
            return float(workers[size].ask("step", number=numbers[size])["seconds"])

        for size in numbers:
            tell(f"vocabulary {size:,}: open and warm up")
            workers[size] = stack.enter_context(_open_training(size, settings))
            step(size)
        yield step


def _open_training(vocabulary: int, settings: GrowthBenchmark) -> Worker:
    """Our system of the training benchmark with a vocabulary of that size."""
    from llm2comp.backbone.hardware import inference_dtype

    precision = str(inference_dtype(settings.precision, "cpu")).removeprefix("torch.")
    command = module_command(
        _TRAINING_JOBS,
        system="llm2comp",
        shape=settings.shape,
        vocabulary=vocabulary,
        texts=_TRAIN_TEXTS,
        tokens=_TRAIN_TOKENS,
        precision=precision,
        seed=settings.seed,
    )
    return Worker(f"llm2comp {precision}", command, threads=settings.threads)
