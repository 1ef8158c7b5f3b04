"""Encoding beside sentence-transformers, bare transformers and llm2vec on the same texts: texts a second, share of the matmul rate, memory, cosine."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llm2comp.backbone.hardware import choose_device
from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost.devices import precisions
from llm2comp_benchmarks.cost.encode.stages import slowest_stage
from llm2comp_benchmarks.cost.models import PARTS, Shape
from llm2comp_benchmarks.cost.turns import RoundStats, in_turn
from llm2comp_benchmarks.cost.worker import Worker, run_process
from llm2comp_benchmarks.results.record import result_record

__all__ = ["PEERS", "EncodeBenchmark", "least_cosine", "run_encode_benchmark"]

PEERS = ("sentence-transformers", "transformers")
"""Peers that run in our own environment, on a plain export of the same weights."""

_LLM2VEC_TEXTS, _LLM2VEC_BATCH, _LLM2VEC_VOCABULARY = 512, 32, 32_000
_PEER = Path(__file__).with_name("peer_llm2vec.py")


@dataclass(frozen=True, slots=True)
class EncodeBenchmark:
    """What is measured.

    Attributes:
        workdir: For models and texts, which are removed at the end.
        model: Name or folder of a model; None: the bundled one.
        shape: Random weights of this shape instead; see `models.Shape`.
        corpora: Sources whose documents are encoded.
        limit: Texts, drawn at random from all documents.
        peers: Of `PEERS`.
        peer_llm2vec: Python of an environment with llm2vec 0.2.3, for a comparison on a random Llama of 15M parameters
            and 512 texts; None: left out.
        precision: Of ours: `float32`, `bfloat16`, or `auto` for both where the processor multiplies bfloat16, else
            float32.
        batch_size: Of ours; None: our default. Peers have theirs.
        threads: In every process.
        rounds: In which every system encodes all texts once.
        seed: Of the draw and of random weights.
        device: That all systems run on; on a GPU memory is the GPU's, and weights are written in the one precision
            asked for.
    """

    workdir: Path
    model: str | None = None
    shape: str | None = None
    corpora: tuple[str, ...] = ("python-docs:all",)
    limit: int = 5000
    peers: tuple[str, ...] = PEERS
    peer_llm2vec: Path | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    batch_size: int | None = None
    threads: int = 1
    rounds: int = 3
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("limit", "threads", "rounds", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise SettingsError(f"{name} is {value}, expected at least 1")
        if unknown := sorted(set(self.peers) - set(PEERS)):
            raise SettingsError(f"peers: there is no {', '.join(unknown)}; give some of {', '.join(PEERS)}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise SettingsError(f"precision is {self.precision!r}; give auto, float32 or bfloat16")
        if self.model is not None and self.shape is not None:
            raise SettingsError(f"model {self.model} and shape {self.shape}: give one of them")
        if self.shape is not None:
            Shape.parse(self.shape)
        if self.device != "cpu" and self.peer_llm2vec is not None:
            raise SettingsError(f"llm2vec is compared on the CPU only; leave it out with device {self.device}")
        choose_device(self.device)
        if self.peer_llm2vec is not None and not shutil.which(self.peer_llm2vec):
            raise SettingsError(
                f"{self.peer_llm2vec}: no such program; give the Python of an environment with llm2vec: bin/python in "
                "it"
            )


@dataclass(slots=True)
class _Contest:
    """Systems that take turns on one model and its texts, and what they answered."""

    folder: Path
    facts: dict[str, Any]
    workers: dict[str, Worker]
    rounds: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    loaded: dict[str, int] = field(default_factory=dict)

    def measure(self, rounds: int, tell: Callable[[str], None]) -> None:
        for name, worker in self.workers.items():
            tell(f"warm up {name}")
            self.loaded[name] = worker.ask("warm_up")["loaded_bytes"]
        for number, name in in_turn(list(self.workers), rounds):
            tell(f"round {number + 1} of {rounds}: {name}")
            self.rounds.setdefault(name, []).append(self.workers[name].ask("round"))

    def seconds(self, name: str) -> list[float]:
        return [answer["seconds"] for answer in self.rounds[name]]

    def tokens(self, name: str) -> int:
        """Tokens of a round, padding left out."""
        tokens: int = (
            self.rounds[name][0].get("tokens")
            or self.workers[name].opened.get("tokens")
            or self.facts["texts"]["tokens"]
        )
        return tokens

    def work(self, name: str) -> float:
        """Floating-point operations of a round, counted as a multiplication and an addition for each parameter and token; attention is not counted."""
        parameters: int = self.facts["model"]["multiplied_parameters"]
        return 2.0 * parameters * self.tokens(name)

    def entry(self, name: str) -> dict[str, Any]:
        """A system's own numbers."""
        worker, answers, seconds = self.workers[name], self.rounds[name], self.seconds(name)
        texts, tokens = answers[0]["texts"], self.tokens(name)
        rates = {"texts_per_second": texts, "tokens_per_second": tokens, "gflops": self.work(name) / 1e9}
        spreads = {rate: RoundStats.of([amount / one for one in seconds]).to_json() for rate, amount in rates.items()}
        memory = {"loaded_bytes": self.loaded[name], "peak_bytes": worker.ask("peak")["peak_bytes"]}
        return {**spreads, "texts": texts, "tokens": tokens, "seconds": seconds, **memory}


def run_encode_benchmark(
    settings: EncodeBenchmark, *, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """The record of a run: `ratios` of ours to each other system, an entry for each system, and what the numbers rest on.

    Args:
        settings: What to measure.
        tell: Called with a line as each part begins.

    Raises:
        LLM2CompError: A part failed, or a peer is missing; that is found out before anything is measured.
    """
    start = time.perf_counter()
    described = {
        name: value for name, value in asdict(settings).items() if name not in ("workdir", "model", "peer_llm2vec")
    }
    record: dict[str, Any] = {"ratios": {}}
    versions: dict[str, str] = {}
    if settings.peer_llm2vec is not None:
        versions = run_process("open llm2vec", [str(settings.peer_llm2vec), "-I", str(_PEER)], settings.threads)
    texts = settings.workdir / "encode-texts.json"
    try:
        settings.workdir.mkdir(parents=True, exist_ok=True)
        drawn = {"file": str(texts), "corpora": settings.corpora, "limit": settings.limit, "seed": settings.seed}
        _set_up("draw texts", "draw", drawn, settings, tell)
        if settings.peer_llm2vec is not None:
            described["llm2vec"] = _compare_with_llm2vec(settings, texts, record, tell)
        described |= _compare_with_peers(settings, texts, record, tell)
    finally:
        texts.unlink(missing_ok=True)
    record |= result_record([], described, threads=settings.threads)
    record["versions"] |= {
        name if name == "llm2vec" else f"{name} beside llm2vec": version for name, version in versions.items()
    }
    return {**record, "seconds": {"all": round(time.perf_counter() - start, 1)}}


def _set_up(
    what: str, job: str, arguments: dict[str, Any], settings: EncodeBenchmark, tell: Callable[[str], None]
) -> dict[str, Any]:
    """What a job of `models` says, done in a process of its own."""
    tell(what)
    return run_process(
        what,
        [sys.executable, "-m", "llm2comp_benchmarks.cost.models", job, json.dumps(arguments)],
        settings.threads,
    )


def _compare_with_peers(
    settings: EncodeBenchmark, texts: Path, record: dict[str, Any], tell: Callable[[str], None]
) -> dict[str, Any]:
    """Adds entries and ratios on the model asked for; says what model and texts are."""
    kinds = precisions(settings.precision, settings.device)
    on_cpu = settings.device == "cpu"
    references = ("float32",) if on_cpu and "sentence-transformers" in settings.peers else ()
    wanted = [("llm2comp", kind) for kind in kinds]
    wanted += [
        ("sentence-transformers", kind)
        for kind in dict.fromkeys((*references, *kinds))
        if "sentence-transformers" in settings.peers
    ]
    wanted += [("transformers", kind) for kind in kinds if "transformers" in settings.peers]
    wanted += [("matmul", kind) for kind in kinds]
    written = "float32" if on_cpu else kinds[0]
    asked = {
        "texts": str(texts),
        "model": settings.model,
        "shape": settings.shape,
        "seed": settings.seed,
        "plain": bool(settings.peers),
        "dtype": written,
    }
    with _opened(settings, "main", asked, wanted, tell) as contest:
        contest.measure(settings.rounds, tell)
        _add_entries(contest, record)
        for kind in kinds:
            ours, entry = contest.workers[f"llm2comp {kind}"], record[f"llm2comp {kind}"]
            tell(f"stages of llm2comp {kind}")
            entry |= ours.ask("stages", file=str(contest.folder / "stages.npy"))
            entry["slowest_stage"] = slowest_stage(entry["stages"])
        _add_ratios(contest, record)
        _add_cosines(contest, record)
        return contest.facts


def _compare_with_llm2vec(
    settings: EncodeBenchmark, texts: Path, record: dict[str, Any], tell: Callable[[str], None]
) -> dict[str, Any]:
    """The same on the language model that llm2vec is given; its vectors are others, so there is no cosine."""
    asked = {
        "texts": str(texts),
        "shape": "15m",
        "count": _LLM2VEC_TEXTS,
        "vocabulary": _LLM2VEC_VOCABULARY,
        "seed": settings.seed,
    }
    wanted = [("llm2comp", kind) for kind in precisions(settings.precision, "cpu")]
    with _opened(settings, "15m", asked, wanted, tell) as contest, ExitStack() as stack:
        given: dict[str, Any] = {
            "backbone": str(contest.folder / PARTS["backbone"]),
            "texts": str(contest.folder / PARTS["texts"]),
        }
        given |= {"count": _LLM2VEC_TEXTS, "batch_size": _LLM2VEC_BATCH}
        tell("open llm2vec")
        command = [str(settings.peer_llm2vec), "-I", str(_PEER), json.dumps(given)]
        contest.workers["llm2vec 15m float32"] = stack.enter_context(
            Worker("llm2vec", command, threads=settings.threads)
        )
        contest.measure(settings.rounds, tell)
        _add_entries(contest, record)
        _add_ratios(contest, record)
        return {**contest.facts, "batch_size_of_llm2vec": _LLM2VEC_BATCH}


@contextmanager
def _opened(
    settings: EncodeBenchmark,
    name: str,
    asked: dict[str, Any],
    wanted: Sequence[tuple[str, str]],
    tell: Callable[[str], None],
) -> Iterator[_Contest]:
    """The systems (name, precision) in a process each, on a model and texts made for them; all is gone afterwards."""
    folder = settings.workdir / f"encode-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    suffix = "" if name == "main" else f" {name}"
    try:
        facts = _set_up("make models" + suffix, "prepare", {"folder": str(folder), **asked}, settings, tell)
        with ExitStack() as stack:
            workers = {}
            for system, kind in wanted:
                label = f"{system}{suffix} {kind}"
                tell(f"open {label}")
                given = {
                    "system": system,
                    "folder": str(folder),
                    "precision": kind,
                    "batch_size": settings.batch_size,
                    "device": settings.device,
                }
                worker = Worker(
                    label,
                    [sys.executable, "-m", "llm2comp_benchmarks.cost.encode.jobs", json.dumps(given)],
                    threads=settings.threads,
                )
                workers[label] = stack.enter_context(worker)
            yield _Contest(folder, facts, workers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _add_entries(contest: _Contest, record: dict[str, Any]) -> None:
    """Every system's own numbers; of encoders also the share of the matmul rate of the same round and precision, where it was measured."""
    for name, answers in contest.rounds.items():
        if not name.startswith("matmul"):
            record[name] = contest.entry(name)
            continue
        rates = {"gflops": "flops", "model_shapes_gflops": "model_shapes_flops"}
        record[name] = {
            rate: RoundStats.of([answer[key] / 1e9 for answer in answers]).to_json() for rate, key in rates.items()
        }
    for name in contest.rounds:
        matmul = contest.rounds.get(f"matmul {name.rpartition(' ')[2]}")
        if matmul and not name.startswith("matmul"):
            reached = [contest.work(name) / seconds for seconds in contest.seconds(name)]
            record[name]["matmul_share"] = RoundStats.ratio(reached, [answer["flops"] for answer in matmul]).to_json()


def _add_ratios(contest: _Contest, record: dict[str, Any]) -> None:
    """Ours over every peer, round by round: texts a second where both had the same texts, else tokens a second; and peak memory."""
    encoders = [name for name in contest.rounds if not name.startswith("matmul")]
    for ours in (name for name in encoders if name.startswith("llm2comp")):
        for other in (name for name in encoders if not name.startswith("llm2comp")):
            per = "tokens" if other.startswith("transformers") else "texts"
            amounts = [record[name][per] for name in (ours, other)]
            speed = RoundStats.ratio(contest.seconds(other), contest.seconds(ours)).scaled(amounts[0] / amounts[1])
            memory = record[ours]["peak_bytes"] / record[other]["peak_bytes"]
            record["ratios"].setdefault(ours, {})[other] = {"per": per, "speed": speed.to_json(), "peak_memory": memory}


def _add_cosines(contest: _Contest, record: dict[str, Any]) -> None:
    """The lowest cosine of a text's vector to that of the float32 peer."""
    reference = "sentence-transformers float32"
    if reference not in contest.workers:
        return
    vectors = {}
    for name, worker in contest.workers.items():
        if name.startswith(("llm2comp", "sentence-transformers")):
            file = contest.folder / f"{name}.npy"
            worker.ask("save", file=str(file))
            vectors[name] = np.load(file)
    for name, found in vectors.items():
        record[name]["least_cosine"] = least_cosine(found, vectors[reference])


def least_cosine(found: np.ndarray, expected: np.ndarray) -> float:
    """The lowest cosine between rows of two arrays (texts, dim); NaN if a vector is not finite."""
    one: np.ndarray = found.astype(np.float64)
    other: np.ndarray = expected.astype(np.float64)
    cosines = (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
    return float(cosines.min())
