"""A step of stage 1 beside a plain implementation at the same shapes: seconds, tokens a second, memory; and memory against the vocabulary."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Literal

from llm2comp.backbone.hardware import choose_device
from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost.devices import precisions
from llm2comp_benchmarks.cost.models import Shape
from llm2comp_benchmarks.cost.turns import RoundStats, in_turn
from llm2comp_benchmarks.cost.worker import Worker
from llm2comp_benchmarks.results.record import result_record

__all__ = ["PEER", "TrainBenchmark", "open_steps", "run_train_benchmark"]

PEER = "plain transformers float32"
"""See `plain.PlainTransformers`."""

_WARM_UPS = 2
_VOCABULARY_STEPS = 3


@dataclass(frozen=True, slots=True)
class TrainBenchmark:
    """What is measured.

    Attributes:
        shape: Of a random Llama; see `models.Shape`.
        vocabulary: Its tokens.
        texts: In a batch.
        tokens: Of a text, context and continuation together.
        precision: Of ours: `float32`, `bfloat16`, or `auto` for both where the processor multiplies bfloat16, else
            float32. The peer's is float32.
        vocabularies: For each, peak memory and time of a step of both, ours in its first precision, in a process of its
            own.
        threads: In every process.
        rounds: In which every system takes one step on the same batch.
        seed: Of weights.
        device: That ours runs on; on a GPU there is no peer, and memory is the GPU's.
        checkpointing: Whether ours recomputes activations in the backward pass.
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
        for name, least in {"vocabulary": 4, "texts": 1, "tokens": 20, "threads": 1, "rounds": 1}.items():
            if getattr(self, name) < least:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if small := [size for size in self.vocabularies if size < 4]:
            raise SettingsError(f"vocabularies hold {small[0]}, expected at least 4")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise SettingsError(f"precision is {self.precision!r}; give auto, float32 or bfloat16")
        Shape.parse(self.shape)
        choose_device(self.device)


def run_train_benchmark(settings: TrainBenchmark, *, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """The record of a run: `ratios` of ours to the peer, an entry for each system, `vocabulary`, and what the numbers rest on.

    Args:
        settings: What to measure.
        tell: Called with a line as each part begins.

    Raises:
        LLM2CompError: A part failed.
    """
    start = time.perf_counter()
    ours = [f"llm2comp {kind}" for kind in precisions(settings.precision, settings.device)]
    peers = [PEER] if settings.device == "cpu" else []
    steps = _compare([*ours, *peers], settings, settings.vocabulary, settings.rounds, tell)
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


def open_steps(name: str, settings: TrainBenchmark, vocabulary: int) -> Worker:
    """The process that takes the steps of a system, called by its name and precision; see `jobs.open_system`."""
    system, _, precision = name.rpartition(" ")
    given = {"system": system, "precision": precision, "shape": settings.shape, "vocabulary": vocabulary}
    given |= {"texts": settings.texts, "tokens": settings.tokens, "seed": settings.seed}
    given |= {"device": settings.device, "checkpointing": settings.checkpointing}
    return Worker(
        name, [sys.executable, "-m", "llm2comp_benchmarks.cost.train.jobs", json.dumps(given)], threads=settings.threads
    )


def _compare(
    names: Sequence[str], settings: TrainBenchmark, vocabulary: int, rounds: int, tell: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Entries of systems that take turns, each with one step a round on the batch of that round."""
    with ExitStack() as stack:
        workers, losses = {}, {}
        for name in names:
            tell(f"open {name}")
            workers[name] = stack.enter_context(open_steps(name, settings, vocabulary))
            losses[name] = workers[name].ask("loss", number=0)["loss"]
            for number in range(_WARM_UPS):
                workers[name].ask("step", number=number)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for number, name in in_turn(names, rounds):
            tell(f"round {number + 1} of {rounds}: {name}")
            seconds[name].append(workers[name].ask("step", number=_WARM_UPS + number)["seconds"])
        return {name: {"loss_before": losses[name], **_entry(workers[name], seconds[name], settings)} for name in names}


def _alone(name: str, settings: TrainBenchmark, vocabulary: int) -> dict[str, Any]:
    with open_steps(name, settings, vocabulary) as worker:
        return _entry(
            worker, [worker.ask("step", number=number)["seconds"] for number in range(_VOCABULARY_STEPS)][1:], settings
        )


def _entry(worker: Worker, seconds: list[float], settings: TrainBenchmark) -> dict[str, Any]:
    """Seconds of steps, and memory: after loading, at most, and what steps (gradients, optimizer and activations) took beyond loading."""
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
    """How many steps of ours go into one of the other's, round by round, and ours over the other's memory; None where loading took the most."""
    memory = {
        name: ours[f"{name}_bytes"] / other[f"{name}_bytes"] if other[f"{name}_bytes"] else None
        for name in ("peak", "step")
    }
    return {
        "speed": RoundStats.ratio(other["seconds"], ours["seconds"]).to_json(),
        "peak_memory": memory["peak"],
        "step_memory": memory["step"],
    }
