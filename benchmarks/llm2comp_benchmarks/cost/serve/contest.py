"""Systems under the same load in turn: rates, latencies, time of processors, and ratios of ours."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llm2comp_benchmarks.cost.text_kinds import text_name
from llm2comp_benchmarks.cost.turns import RoundStats, in_turn
from llm2comp_benchmarks.cost.worker import Worker

__all__ = ["BARE", "ENCODE", "OURS", "QUERY", "UNBATCHED", "Case", "Contest"]

OURS, UNBATCHED, BARE = "llm2comp", "llm2comp-unbatched", "bare FastAPI"
ENCODE, QUERY = "encode", "encode_query"
_MILLISECONDS = 1e3


class Case(NamedTuple):
    """A load: the kind of the texts, their number in a request, and the number of clients."""

    kind: str
    size: int
    clients: int

    @property
    def is_lone_query(self) -> bool:
        """Whether one client sends one text at a time, as `encode_query` is called."""
        return self.size == self.clients == 1


@dataclass(slots=True)
class Contest:
    """Systems that take turns in each case.

    Attributes:
        folder: The folder with the texts.
        servers: Servers by name.
        encoder: Process of `encoder.open_encoder`.
        load: Process of `load.open_load`.
        seconds: In which clients send requests in a round.
        answers: What each system answered in each round of the case.
    """

    folder: Path
    servers: Mapping[str, Worker]
    encoder: Worker
    load: Worker
    seconds: float
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def measure(self, case: Case, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
        """The entry of a case: `ratios` of ours, and rates and latencies by system."""
        systems = [*self.servers, ENCODE, *([QUERY] if case.is_lone_query else [])]
        self.answers = {name: [] for name in systems}
        tell(f"{case.kind} texts, {case.size} in a request, {case.clients} clients")
        for _, name in in_turn(systems, rounds):
            self.answers[name].append(self.ask(name, case, self.seconds))
        entries = {name: _entry(answers) for name, answers in self.answers.items()}
        return {**case._asdict(), "ratios": self._ratios(), "systems": entries}

    def ask(self, name: str, case: Case, seconds: float) -> dict[str, Any]:
        """What a system does in some seconds of a case: texts, seconds, latencies, and seconds of its processors."""
        if name == ENCODE:
            return self.encoder.ask("encode", kind=case.kind)
        if name == QUERY:
            answer = self.encoder.ask("queries", kind=case.kind, seconds=seconds)
            return answer | {"texts": len(answer["latencies"])}
        server = self.servers[name]
        before = server.ask("usage")["cpu_seconds"]
        answer = self.load.ask(
            "load",
            port=server.opened["port"],
            texts=str(self.folder / f"{text_name(case.kind)}.json"),
            size=case.size,
            clients=case.clients,
            seconds=seconds,
        )
        answer["clients_cpu_seconds"] = answer.pop("cpu_seconds")
        spent = server.ask("usage")["cpu_seconds"] - before
        return answer | {"texts": case.size * len(answer["latencies"]), "cpu_seconds": spent}

    def _ratios(self) -> dict[str, dict[str, Any]]:
        """Ours over every other system, round by round: texts a second, and the 95th percentile of the latency.

        For one text of one client, the median latency over those of `encode_query` and of the bare framework together.
        """
        ours = self.answers[OURS]
        ratios: dict[str, dict[str, Any]] = {}
        for name, answers in self.answers.items():
            if name in (OURS, BARE, QUERY):
                continue
            ratios[name] = {"speed": RoundStats.ratio(_rates(ours), _rates(answers)).to_json()}
            if "latencies" in answers[0]:
                p95 = RoundStats.ratio(_percentiles(ours, 95), _percentiles(answers, 95))
                ratios[name]["p95"] = p95.to_json()
        if QUERY in self.answers and BARE in self.answers:
            parts = [_percentiles(self.answers[name], 50) for name in (QUERY, BARE)]
            both = [sum(latencies) for latencies in zip(*parts, strict=True)]
            ratios[f"{QUERY} + {BARE}"] = {"p50": RoundStats.ratio(_percentiles(ours, 50), both).to_json()}
        return ratios


def _rates(answers: list[dict[str, Any]]) -> list[float]:
    """Texts a second of each round."""
    return [answer["texts"] / answer["seconds"] for answer in answers]


def _percentiles(answers: list[dict[str, Any]], percent: float) -> list[float]:
    """A percentile of the latencies of each round, in seconds."""
    return [float(np.percentile(answer["latencies"], percent)) for answer in answers]


def _entry(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Rates over the rounds, latencies over the requests of all rounds, and processor time for each text."""
    texts = sum(answer["texts"] for answer in answers)
    entry: dict[str, Any] = {"texts_per_second": RoundStats.of(_rates(answers)).to_json()}
    if "latencies" in answers[0]:
        times = _MILLISECONDS * np.concatenate([answer["latencies"] for answer in answers])
        percentiles = dict(zip(("p50", "p95", "p99"), map(float, np.percentile(times, [50, 95, 99])), strict=True))
        entry["latency_ms"] = {"requests": len(times), **percentiles}
    for part in ("cpu", "clients_cpu"):
        if f"{part}_seconds" in answers[0]:
            entry[f"{part}_ms_per_text"] = _MILLISECONDS * sum(answer[f"{part}_seconds"] for answer in answers) / texts
    return entry
