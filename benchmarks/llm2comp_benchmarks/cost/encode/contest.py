"""Systems that encode the same texts in turn, and the numbers that come of it: rates, ratios, memory, cosines."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llm2comp_benchmarks.cost.text_kinds import text_name
from llm2comp_benchmarks.cost.turns import RoundStats, in_turn
from llm2comp_benchmarks.cost.worker import Worker

__all__ = ["Contest", "least_cosine"]

_OURS, _MATMUL, _REFERENCE = "llm2comp", "matmul", "sentence-transformers float32"
_SAME_VECTORS = (_OURS, "sentence-transformers", "openvino", "onnxruntime")
_MILLISECONDS = 1e3


@dataclass(slots=True)
class Contest:
    """Systems that take turns on one model and its texts of one kind.

    Attributes:
        folder: The folder that `models.prepare` filled.
        facts: What `models.prepare` returned.
        workers: The systems by name; a name ends in the precision.
        kind: Kind of texts; see `text_kinds`.
        rounds: What each system answered in each round.
        loaded: Memory of each system after its warm-up, in bytes.
    """

    folder: Path
    facts: dict[str, Any]
    workers: dict[str, Worker]
    kind: str = "document"
    rounds: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    loaded: dict[str, int] = field(default_factory=dict)

    def measure(self, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
        """Has every system encode all texts in every round; an entry for each system by its label, and `ratios`."""
        for name, worker in self.workers.items():
            tell(f"warm up {self.label(name)}")
            self.loaded[name] = worker.ask("warm_up", kind=self.kind)["loaded_bytes"]
        for number, name in in_turn(list(self.workers), rounds):
            tell(f"round {number + 1} of {rounds}: {self.label(name)}")
            self.rounds.setdefault(name, []).append(self.workers[name].ask("round", kind=self.kind))
        entries = {name: self._matmul_entry(name) if _is_matmul(name) else self._entry(name) for name in self.workers}
        labelled = {self.label(name): entry for name, entry in entries.items()}
        return {**labelled, "ratios": self._ratios(entries)}

    def label(self, name: str) -> str:
        """Name of a system in results, such as `openvino short bfloat16`; of documents as it is."""
        system, _, precision = name.partition(" ")
        return name if self.kind == "document" else f"{system} {self.kind} {precision}"

    def _seconds(self, name: str) -> list[float]:
        return [answer["seconds"] for answer in self.rounds[name]]

    def _tokens(self, name: str) -> int:
        """Tokens of a round, padding left out."""
        tokens: int = (
            self.rounds[name][0].get("tokens")
            or self.workers[name].opened.get("tokens")
            or self.facts[text_name(self.kind)]["tokens"]
        )
        return tokens

    def _operations(self, name: str) -> float:
        """Floating-point operations of a round: one multiplication and one addition per parameter and token.

        Attention is not counted.
        """
        parameters: int = self.facts["model"]["multiplied_parameters"]
        return 2.0 * parameters * self._tokens(name)

    def _entry(self, name: str) -> dict[str, Any]:
        """Rates, seconds and memory of an encoder, and its share of the matmul rate where that was measured."""
        seconds, texts, tokens = self._seconds(name), self.rounds[name][0]["texts"], self._tokens(name)
        work = {"texts_per_second": texts, "tokens_per_second": tokens, "gflops": self._operations(name) / 1e9}
        rates = {rate: RoundStats.of([amount / one for one in seconds]).to_json() for rate, amount in work.items()}
        memory = {"loaded_bytes": self.loaded[name], "peak_bytes": self.workers[name].ask("peak")["peak_bytes"]}
        entry = {**rates, "texts": texts, "tokens": tokens, "seconds": seconds, **memory}
        return {**entry, **self._matmul_share(name), **self._latency(name)}

    def _latency(self, name: str) -> dict[str, Any]:
        """Milliseconds of one query at a time, over the queries of all rounds; empty where none were timed."""
        rounds = [answer["query_seconds"] for answer in self.rounds[name] if "query_seconds" in answer]
        if not rounds:
            return {}
        times = _MILLISECONDS * np.concatenate(rounds)
        p50, p99 = np.percentile(times, [50, 99])
        return {"query_ms": {"queries": len(times), "p50": float(p50), "p99": float(p99)}}

    def _matmul_share(self, name: str) -> dict[str, Any]:
        """Operations a second over those of matrix products in the same round and precision."""
        matmul = self.rounds.get(f"{_MATMUL} {name.rpartition(' ')[2]}")
        if matmul is None:
            return {}
        rates = [self._operations(name) / seconds for seconds in self._seconds(name)]
        return {"matmul_share": RoundStats.ratio(rates, [answer["flops"] for answer in matmul]).to_json()}

    def _matmul_entry(self, name: str) -> dict[str, Any]:
        rates = {"gflops": "flops", "model_shapes_gflops": "model_shapes_flops"}
        return {
            rate: RoundStats.of([answer[key] / 1e9 for answer in self.rounds[name]]).to_json()
            for rate, key in rates.items()
        }

    def _ratios(self, entries: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Ours over every peer, and over ours with the default malloc: speed round by round, and peak memory."""
        encoders = [name for name in self.rounds if not _is_matmul(name)]
        ours = [name for name in encoders if name.startswith(_OURS)]
        ratios = {
            self.label(one): {
                self.label(other): self._ratio(one, other, entries) for other in encoders if _are_compared(one, other)
            }
            for one in ours
        }
        return {one: others for one, others in ratios.items() if others}

    def _ratio(self, ours: str, peer: str, entries: dict[str, Any]) -> dict[str, Any]:
        """Texts a second where both encode the same texts, else tokens a second; `query`: their p50 over ours."""
        per = "tokens" if peer.startswith("transformers") else "texts"
        work = entries[ours][per] / entries[peer][per]
        speed = RoundStats.ratio(self._seconds(peer), self._seconds(ours)).scaled(work)
        memory = entries[ours]["peak_bytes"] / entries[peer]["peak_bytes"]
        latencies = [entries[name].get("query_ms") for name in (peer, ours)]
        query = {"query": latencies[0]["p50"] / latencies[1]["p50"]} if all(latencies) else {}
        return {"per": per, "speed": speed.to_json(), "peak_memory": memory, **query}

    def least_cosines(self) -> dict[str, float]:
        """For each encoder of the same weights, by label, the lowest cosine of a text's vector to the float32 peer's.

        Empty where that peer took no part.
        """
        if _REFERENCE not in self.workers:
            return {}
        vectors = {}
        for name, worker in self.workers.items():
            if name.startswith(_SAME_VECTORS):
                file = self.folder / f"{name}.npy"
                worker.ask("save", file=str(file))
                vectors[name] = np.load(file)
        return {self.label(name): least_cosine(rows, vectors[_REFERENCE]) for name, rows in vectors.items()}


def _are_compared(ours: str, other: str) -> bool:
    """Whether the other system is a peer, or ours in the same precision with the default malloc."""
    return not other.startswith(_OURS) or ours.removeprefix(_OURS) == other.removeprefix(f"{_OURS}-default-malloc")


def _is_matmul(name: str) -> bool:
    return name.startswith(_MATMUL)


def least_cosine(vectors: np.ndarray, expected: np.ndarray) -> float:
    """The lowest cosine between rows of two arrays (texts, dim); NaN if a vector is not finite."""
    one: np.ndarray = vectors.astype(np.float64)
    other: np.ndarray = expected.astype(np.float64)
    cosines = (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
    return float(cosines.min())
