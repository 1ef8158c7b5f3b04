"""The servers of the benchmark, each in a process of its own: ours, a plain one, and one that answers a constant."""

import base64
import json
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llm2comp_benchmarks.cost.memory import memory_of
from llm2comp_benchmarks.cost.models import PARTS
from llm2comp_benchmarks.cost.processes import Job
from llm2comp_benchmarks.cost.worker import serve

__all__ = ["FACTS", "SERVERS", "open_server"]

FACTS = "facts.json"
"""File with facts about the model, in its folder."""

_POLL_SECONDS = 0.02


def _run_ours(folder: Path, dtype: str, port: int, *, batching: bool = True) -> None:
    """`llm2comp serve`; without batching, each request is a batch."""
    import llm2comp
    from llm2comp_serve import ServeSettings
    from llm2comp_serve.run import configure_log, run

    llm2comp.keep_freed_memory()
    configure_log()
    settings = ServeSettings(models=(str(folder / PARTS["ours"]),), dtype=dtype, device="cpu", batching=batching)
    run(settings, host="127.0.0.1", port=port)


def _run_plain(folder: Path, dtype: str, port: int) -> None:
    """sentence-transformers behind FastAPI, as their documentations show both; same weights, same precision."""
    import torch
    from fastapi import FastAPI
    from pydantic import BaseModel
    from sentence_transformers import SentenceTransformer

    class Texts(BaseModel):
        input: str | list[str]

    model = SentenceTransformer(
        str(folder / PARTS["plain"]), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)}
    )
    app = FastAPI()

    @app.post("/v1/embeddings")
    def embeddings(texts: Texts) -> dict[str, Any]:
        several = [texts.input] if isinstance(texts.input, str) else texts.input
        vectors = model.encode(several, show_progress_bar=False)
        return {"data": [{"index": place, "embedding": vector.tolist()} for place, vector in enumerate(vectors)]}

    _run_app(app, port)


def _run_bare(folder: Path, dtype: str, port: int) -> None:
    """FastAPI alone: reads a request, and answers vectors of zeros in the size of real ones."""
    from fastapi import FastAPI, Response
    from pydantic import BaseModel

    class Texts(BaseModel):
        input: str | list[str]

    dimension = json.loads((folder / FACTS).read_text())["model"]["hidden"]
    vector = base64.b64encode(bytes(4 * dimension)).decode()
    app = FastAPI()

    @app.post("/v1/embeddings")
    async def embeddings(texts: Texts) -> Response:
        number = 1 if isinstance(texts.input, str) else len(texts.input)
        return Response(answers[number], media_type="application/json")

    answers = {number: _constant(vector, number) for number in range(1, 65)}
    _run_app(app, port)


def _constant(vector: str, number: int) -> bytes:
    rows = [{"object": "embedding", "index": place, "embedding": vector} for place in range(number)]
    usage = {"prompt_tokens": 99, "total_tokens": 99}
    return json.dumps({"object": "list", "data": rows, "model": "llm2comp", "usage": usage}).encode()


def _run_app(app: Any, port: int) -> None:
    import uvicorn

    app.get("/ready")(lambda: "ready")
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


SERVERS: dict[str, Callable[[Path, str, int], None]] = {
    "llm2comp": _run_ours,
    "llm2comp-unbatched": lambda folder, dtype, port: _run_ours(folder, dtype, port, batching=False),
    "sentence-transformers": _run_plain,
    "bare FastAPI": _run_bare,
}
"""Runs a server of the folder's model on a port, by its name in results."""


def open_server(system: str, folder: str, dtype: str, threads: int) -> tuple[dict[str, Any], Mapping[str, Job]]:
    """The port of a server that is ready, and the jobs of its process: `usage`."""
    import torch

    torch.set_num_threads(threads)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    thread = threading.Thread(target=SERVERS[system], args=(Path(folder), dtype, port), daemon=True)
    thread.start()
    while not _is_ready(port):
        if not thread.is_alive():
            raise SystemExit(f"{system} has ended")
        time.sleep(_POLL_SECONDS)

    def usage() -> dict[str, Any]:
        return {"cpu_seconds": time.process_time(), "resident": memory_of("self")["VmRSS"]}

    return {"port": port}, {"usage": usage}


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready"):
            return True
    except (OSError, urllib.error.HTTPError):
        return False


if __name__ == "__main__":
    serve(lambda: open_server(**json.loads(sys.argv[1])))
