"""Encodes texts with llm2vec, as a `worker.Worker`.

The Python of an environment with llm2vec runs this file, so it imports nothing of ours and has its own copy of what
`worker.serve` and `memory` do: `python -I peer_llm2vec.py '{"backbone": DIR, "texts": FILE, "count": 512,
"batch_size": 32}'` answers jobs read from standard input, one a line. Without an argument it prints versions.
"""

import json
import os
import resource
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

__all__ = ["main"]

_MAX_LENGTH = 512
_WARM_UP = 64


def main() -> None:
    """Loads the language model as llm2vec does by default, and encodes when asked to; without an argument: versions.

    That is bidirectional attention, mean pooling and float32.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from llm2vec import LLM2Vec  # type: ignore[import-not-found,unused-ignore]  # of another environment

    versions = {name: version(name) for name in ("llm2vec", "transformers", "torch")}
    if len(sys.argv) == 1:
        answers.write(json.dumps(versions))
        return
    import torch

    arguments = json.loads(sys.argv[1])
    model = LLM2Vec.from_pretrained(
        arguments["backbone"], device_map="cpu", torch_dtype=torch.float32, pooling_mode="mean", max_length=_MAX_LENGTH
    )
    texts = json.loads(Path(arguments["texts"]).read_text(encoding="utf-8"))[: arguments["count"]]

    def encode(several: list[str]) -> None:
        model.encode(several, batch_size=arguments["batch_size"], show_progress_bar=False)

    def send(answer: dict[str, float]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    tokens = sum(min(len(ids), _MAX_LENGTH) for ids in model.tokenizer(texts)["input_ids"])
    send({"tokens": tokens})
    for line in sys.stdin:
        job, _ = json.loads(line)
        if job == "warm_up":
            encode(texts[:_WARM_UP])
            send({"loaded_bytes": _reset_peak()})
        elif job == "round":
            start = time.perf_counter()
            encode(texts)
            send({"seconds": time.perf_counter() - start, "texts": len(texts)})
        else:
            send({"peak_bytes": _field("VmHWM") if sys.platform.startswith("linux") else _peak()})


def _reset_peak() -> int:
    """As `memory.reset_peak`."""
    if not sys.platform.startswith("linux"):
        return _peak()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _field("VmRSS")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _field(name: str) -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status[name].split()[0])


if __name__ == "__main__":
    main()
