"""Training steps of stage 1 beside a plain implementation at the same shapes.

Measured are seconds, tokens a second and memory of a step, and memory against the vocabulary.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Literal

from llm2comp.backbone.hardware import choose_device
from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost.checks import check_at_least, check_precision
from llm2comp_benchmarks.cost.devices import precisions
from llm2comp_benchmarks.cost.processes import module_command
from llm2comp_benchmarks.cost.shapes import Shape
from llm2comp_benchmarks.cost.turns import RoundStats, in_turn
from llm2comp_benchmarks.cost.worker import Worker
from llm2comp_benchmarks.results.record import result_record

__all__ = ["PEER", "TrainBenchmark", "run_train_benchmark"]

PEER = "plain transformers float32"
"""See `plain.PlainTransformers`."""

_WARM_UPS = 2
_VOCABULARY_STEPS = 3


@dataclass(frozen=True, slots=True)
class TrainBenchmark:
    """What is measured.

    Attributes:
        shape: Of a random Llama; see `shapes.Shape`.
        vocabulary: Number of its tokens.
        texts: Number of texts in a batch.
        tokens: Tokens of a text, context and continuation together.
        precision: Of our system: `float32`, `bfloat16`, or `auto` for both where the processor multiplies bfloat16,
            else float32. The peer's is float32.
        vocabularies: For each, peak memory and time of a step of both systems, each in a process of its own; ours in
            its first precision.
        threads: In every process.
        rounds: In each of which every system takes one step on the same batch.
        seed: Of the weights.
        device: That our system runs on. On a GPU there is no peer, and memory is the GPU's.
        checkpointing: Whether our system recomputes activations in the backward pass.
    """

    shape: str = "15m"
    vocabulary: int = 32_000
    texts: int = 4
    tokens: int = 300
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    vocabularies: tuple[int, ...] = ()
    threads: int = 1
    rounds: int = 5
    seed: int = 0
    device: str = "cpu"
    checkpointing: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, {"vocabulary": 4, "texts": 1, "tokens": 20, "threads": 1, "rounds": 1})
        if small := [size for size in self.vocabularies if size < 4]:
            raise SettingsError(f"vocabularies hold {small[0]}, expected at least 4")
        check_precision(self.precision)
        Shape.parse(self.shape)
        choose_device(self.device)


def run_train_benchmark(settings: TrainBenchmark, *, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """The record of a run: `ratios` of ours to the peer, an entry for each system, `vocabulary`, and the settings.

    Args:
        settings: What to measure.
        tell: Called with a line as each part begins.

    Raises:
        LLM2CompError: A part failed.
    """
    start = time.perf_counter()
    ours = [f"llm2comp {kind}" for kind in precisions(settings.precision, settings.device)]
    peers = [PEER] if settings.device == "cpu" else []
    steps = _compare([*ours, *peers], settings, tell)
    ratios = {name: {peer: _ratio(steps[name], steps[peer]) for peer in peers} for name in ours}
    grown = {}
    for vocabulary in settings.vocabularies:
        tell(f"vocabulary {vocabulary}")
        grown[str(vocabulary)] = {name: _alone(name, settings, vocabulary) for name in (ours[0], *peers)}
    record = result_record([], asdict(settings), threads=settings.threads)
    return {
        "ratios": ratios,
        **steps,
        "vocabulary": grown,
        **record,
        "seconds": {"all": round(time.perf_counter() - start, 1)},
    }


def _open_steps(name: str, settings: TrainBenchmark, vocabulary: int) -> Worker:
    """The process that takes the steps of a system, called by name and precision; see `jobs.open_system`."""
    system, _, precision = name.rpartition(" ")
    size = {"shape": settings.shape, "vocabulary": vocabulary, "texts": settings.texts, "tokens": settings.tokens}
    options = {"seed": settings.seed, "device": settings.device, "checkpointing": settings.checkpointing}
    command = module_command(
        "llm2comp_benchmarks.cost.train.jobs", system=system, precision=precision, **size, **options
    )
    return Worker(name, command, threads=settings.threads)


def _compare(names: Sequence[str], settings: TrainBenchmark, tell: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Entries of systems that take turns: in each round every system takes a step on the same batch."""
    with ExitStack() as stack:
        workers, losses = {}, {}
        for name in names:
            tell(f"open {name}")
            workers[name] = stack.enter_context(_open_steps(name, settings, settings.vocabulary))
            losses[name] = workers[name].ask("loss", number=0)["loss"]
            for number in range(_WARM_UPS):
                workers[name].ask("step", number=number)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for number, name in in_turn(names, settings.rounds):
            tell(f"round {number + 1} of {settings.rounds}: {name}")
            seconds[name].append(workers[name].ask("step", number=_WARM_UPS + number)["seconds"])
        return {name: {"loss_before": losses[name], **_entry(workers[name], seconds[name], settings)} for name in names}


def _alone(name: str, settings: TrainBenchmark, vocabulary: int) -> dict[str, Any]:
    """The entry of a system in a process of its own; the first step is not counted."""
    with _open_steps(name, settings, vocabulary) as worker:
        seconds = [worker.ask("step", number=number)["seconds"] for number in range(_VOCABULARY_STEPS)]
        return _entry(worker, seconds[1:], settings)


def _entry(worker: Worker, seconds: list[float], settings: TrainBenchmark) -> dict[str, Any]:
    """Seconds of steps, and memory in bytes: after loading, peak, and the difference, which the steps took.

    Steps take memory for gradients, the optimizer and activations.
    """
    loaded, peak = worker.opened["loaded_bytes"], worker.ask("peak")["peak_bytes"]
    return {
        "step_seconds": RoundStats.of(seconds).to_json(),
        "tokens_per_second": RoundStats.of([settings.texts * settings.tokens / one for one in seconds]).to_json(),
        "seconds": seconds,
        "trained_parameters": worker.opened["trained_parameters"],
        "loaded_bytes": loaded,
        "peak_bytes": peak,
        "step_bytes": peak - loaded,
    }


def _ratio(ours: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Speed of ours over the peer's, round by round, and ours over its memory.

    A ratio of memory is None where loading was the peer's peak.
    """
    memory = {
        name: ours[f"{name}_bytes"] / other[f"{name}_bytes"] if other[f"{name}_bytes"] else None
        for name in ("peak", "step")
    }
    return {
        "speed": RoundStats.ratio(other["seconds"], ours["seconds"]).to_json(),
        "peak_memory": memory["peak"],
        "step_memory": memory["step"],
    }
