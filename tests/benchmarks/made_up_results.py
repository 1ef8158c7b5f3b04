"""Result files with made-up scores, for the tests of comparisons and reports."""

import json
from pathlib import Path
from typing import Any

BESIDE = {
    "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    "hardware": {"processor": "a processor", "threads": 1, "gpus": []},
    "commit": "c" * 40,
}


def write_result(path: Path, tasks: dict[str, dict[str, float]], **beside: Any) -> Path:
    """A file as `llm2comp eval --json` writes it.

    `beside` may hold `details` and `samples` by task, `settings` and `analysis`.
    """
    details = beside.get("details", {})
    settings = {
        "model": path.stem,
        **beside.get("settings", {}),
        "tasks": {task: details.get(task, {"split": "test"}) for task in tasks},
    }
    record = {
        **tasks,
        "settings": settings,
        **BESIDE,
        "seconds": dict.fromkeys(tasks, 30.0),
        "samples": beside.get("samples", {}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(record | ({"analysis": beside["analysis"]} if "analysis" in beside else {})), encoding="utf-8"
    )
    return path


def queries(values: list[float], ids: list[str] | None = None, *, metric: str = "ndcg_at_10") -> dict[str, Any]:
    """Samples of a mean over queries."""
    return {
        "metric": metric,
        "statistic": "mean",
        "unit": "query",
        "ids": ids or [f"q{number}" for number in range(len(values))],
        "values": values,
    }


def write_ablation_run(
    folder: Path, pretext: str, stage: str, seed: int, stsb: float, xquad: float, **settings: Any
) -> Path:
    """A model of an ablation, scored on one task of each of two kinds, and on `more`.

    `beside` holds further entries: `samples` of the file, and `training` and `missing` of its settings.
    """
    beside = settings.pop("beside", {})
    scores = {"stsb": {"cosine_spearman": stsb}, "xquad": {"ndcg_at_10": xquad}, **settings.pop("more", {})}
    k = 0 if pretext == "mntp" else 8
    ablation = {
        "pretext": pretext,
        "stage": stage,
        "seed": seed,
        "memory_tokens": k,
        "supervised_samples": 0,
        "pooling": "mean",
        **settings,
    }
    name = "-".join(
        map(str, (pretext, stage, seed, ablation["memory_tokens"], ablation["supervised_samples"], ablation["pooling"]))
    )
    analysis = {"participation_ratio": 10.0 + seed, "memory_similarity_mean": None if pretext == "mntp" else 0.5}
    more = {entry: beside[entry] for entry in ("training", "missing") if entry in beside}
    return write_result(
        folder / f"{name}.json",
        scores,
        settings={"ablation": ablation, **more},
        analysis=analysis,
        samples=beside.get("samples", {}),
    )
