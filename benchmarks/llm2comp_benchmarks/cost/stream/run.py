"""Memory of `llm2comp index build` over a long stream of short texts, and what a kill half-way costs.

`python -m llm2comp_benchmarks.cost.stream.run WORKDIR benchmarks/results/stream-1000000.json 1000000` measures it. The
texts are sentences of the documentation of Python's standard library, each with a number. A shape as a last argument,
such as 64x1x64, has a model of random weights encode them in place of the bundled one: memory does not depend on what
the weights are.
"""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost.models import PARTS, prepare
from llm2comp_benchmarks.cost.stream.texts import write_stream
from llm2comp_benchmarks.cost.stream.watch import WatchedBuild, finished_blocks, half_a_block, watch_build
from llm2comp_benchmarks.cost.versions import index_versions
from llm2comp_benchmarks.results.record import result_record, write_record

__all__ = ["measure_stream", "peaks_by_phase"]

_FEWEST_BLOCKS = 8  # of a stream: both runs need some
_REPORTED = ("documents", "encoded", "encode_seconds", "seconds")  # by the build itself


def measure_stream(
    workdir: Path,
    texts: int,
    *,
    shape: str | None = None,
    corpus: str = "python-docs:",
    threads: int = 1,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The record: memory over time of a build killed half-way and of the same command again, and the cost of the kill.

    Args:
        workdir: Folder for the stream, the model and the index, which are removed at the end.
        texts: Number of texts.
        shape: Random weights of this shape; None: the bundled model.
        corpus: Where sentences are taken from.
        threads: Limit of the build's threads.
        tell: Called with a line now and then.

    Raises:
        SettingsError: Too few texts.
        LLM2CompError: A build failed.
    """
    from llm2comp_indexes import verify_index
    from llm2comp_indexes.builder.blocks import BLOCK

    if texts < _FEWEST_BLOCKS * BLOCK:
        raise SettingsError(
            f"{texts:,} texts, expected at least {_FEWEST_BLOCKS * BLOCK:,}, which are {_FEWEST_BLOCKS} blocks"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    file, output, start = workdir / "stream.jsonl", workdir / "stream-index", time.perf_counter()
    sample = write_stream(file, corpus, texts)
    model, described = _make_model(workdir / "stream-model", shape) if shape else (None, "the bundled one")
    facts = {"texts": texts, "model": described, "corpus": corpus, "tokens_of_a_text": _token_counts(model, sample)}
    shutil.rmtree(output, ignore_errors=True)
    killed = watch_build(file, output, model=model, block=BLOCK, threads=threads, kill_at=texts // 2, tell=tell)
    finished = BLOCK * finished_blocks(output)
    tell(f"killed with {finished:,} texts in finished blocks")
    resumed = watch_build(file, output, model=model, block=BLOCK, threads=threads, tell=tell)
    verify_index(output)
    shutil.rmtree(output)
    shutil.rmtree(workdir / "stream-model", ignore_errors=True)
    file.unlink()
    facts |= {"block": BLOCK, "threads": threads}
    facts["command"] = "llm2comp index build stream.jsonl -o INDEX --type flat --json"
    record = result_record([], facts, threads=threads)
    record["versions"] |= index_versions()
    samples = {"killed": killed.samples(), "resumed": resumed.samples()}
    parts = {
        "killed": _run_entry(killed, samples["killed"]),
        "resumed": _run_entry(resumed, samples["resumed"]),
        "restart": _restart_entry(killed, resumed, texts, finished, BLOCK),
    }
    return {**parts, **record, "seconds": {"all": round(time.perf_counter() - start, 1)}, "samples": samples}


def _make_model(folder: Path, shape: str) -> tuple[str, dict[str, Any]]:
    """Folder of a model of random weights, and facts about it."""
    shutil.rmtree(folder, ignore_errors=True)
    facts: dict[str, Any] = prepare(str(folder), shape=shape, plain=False)["model"]
    return str(folder / PARTS["ours"]), facts


def _token_counts(model: str | None, texts: list[str]) -> dict[str, float]:
    """Mean and maximum of the tokens of a text, memory tokens among them."""
    import llm2comp

    encoder = llm2comp.load(model).encoder
    lengths = [len(ids) + encoder.memory_tokens for ids in encoder.token_ids(texts)]
    return {"mean": round(mean(lengths), 2), "most": max(lengths)}


def _run_entry(watched: WatchedBuild, samples: dict[str, list[Any]]) -> dict[str, Any]:
    """Peaks and seconds of a run, and what it reported itself."""
    reported = {name: watched.report[name] for name in _REPORTED} if watched.report else {}
    return {"peak_bytes": peaks_by_phase(samples), "wall_seconds": watched.seconds[-1], **reported}


def peaks_by_phase(samples: dict[str, list[Any]]) -> dict[str, dict[str, int]]:
    """Peaks of a curve: in the first and the second half of the encoding, and in all.

    The encoding begins with the first finished block and ends with the last.
    """
    texts = samples["texts"]
    encoding = [number for number, count in enumerate(texts) if texts[0] < count < max(texts)]
    half = len(encoding) // 2
    phases = {"encoding_first_half": encoding[:half], "encoding_second_half": encoding[half:], "all": range(len(texts))}
    return {
        phase: {name: max(samples[name][number] for number in numbers) for name in ("resident", "anonymous")}
        for phase, numbers in phases.items()
    }


def _restart_entry(
    killed: WatchedBuild, resumed: WatchedBuild, texts: int, finished: int, block: int
) -> dict[str, Any]:
    """The cost of the kill: finished texts encoded again, and seconds lost in the block under way beside a block's."""
    assert resumed.report is not None
    return {
        "finished_before_the_kill": finished,
        "encoded_after_it": resumed.report["encoded"],
        "finished_but_encoded_again": finished + resumed.report["encoded"] - texts,
        "seconds_in_the_block": round(killed.since_block, 2),
        "seconds_a_block": round(2 * half_a_block(killed, block), 2),
    }


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # progress of a command run by hand


def main() -> None:
    """Measures a stream; arguments: the working folder, the result file, the number of texts, and a shape or none."""
    workdir, file, texts, *shape = sys.argv[1:]
    write_record(file, measure_stream(Path(workdir), int(texts), shape=shape[0] if shape else None, tell=_tell))


if __name__ == "__main__":
    main()
