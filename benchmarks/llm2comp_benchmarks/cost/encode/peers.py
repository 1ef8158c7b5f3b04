"""Peers of the encoding benchmark by name: the precisions they run in, the packages they need, and their settings."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from llm2comp.optional import optional_import
from llm2comp_benchmarks.cost.encode.peer_onnxruntime import onnxruntime_settings
from llm2comp_benchmarks.cost.encode.peer_openvino import openvino_settings

__all__ = ["ENGINES", "PEERS", "check_engines", "engine_settings", "engine_systems"]


class Engine(NamedTuple):
    """A peer that runs on a CPU, in an engine of its own.

    Attributes:
        precisions: Precisions it is measured in, bfloat16 only where ours is.
        packages: Python packages it needs, by their names when imported.
    """

    precisions: tuple[str, ...]
    packages: tuple[str, ...]


_OPENVINO = Engine(("float32", "bfloat16", "int8"), ("openvino", "nncf"))
_ONNXRUNTIME = Engine(("float32", "int8"), ("onnxruntime", "onnx"))

ENGINES = {
    "openvino": _OPENVINO,
    "openvino-streams": _OPENVINO,
    "onnxruntime": _ONNXRUNTIME,
    "onnxruntime-streams": _ONNXRUNTIME,
    "llama.cpp": Engine(("bfloat16", "q8_0"), ("gguf",)),
}
"""Engines by name. They run in our own environment, with the extra `peers`; llama.cpp by node-llama-cpp besides."""

PEERS = ("sentence-transformers", "transformers", *ENGINES)
"""Peers that run on a plain export of the same weights."""


def check_engines(peers: Sequence[str]) -> dict[str, str]:
    """Versions of the packages that these peers need.

    Raises:
        LLM2CompError: A package is not installed; the message has the command that installs it.
    """
    versions = {}
    for name in peers:
        for package in ENGINES[name].packages if name in ENGINES else ():
            optional_import(package, extra="peers", needed_by=f"the peer {name}")
            versions[package] = version(package)
    return versions


def engine_systems(peers: Sequence[str], precisions: Sequence[str]) -> list[tuple[str, str]]:
    """Engines and their precisions, beside ours in `precisions`."""
    return [
        (name, precision)
        for name, engine in ENGINES.items()
        for precision in engine.precisions
        if name in peers and (precision != "bfloat16" or precision in precisions)
    ]


def engine_settings(systems: Sequence[tuple[str, str]], threads: int) -> dict[str, dict[str, Any]]:
    """What the engines were told, by system and precision."""
    settings: dict[str, dict[str, Any]] = {}
    for name, precision in systems:
        engine, _, suffix = name.partition("-")
        streams = threads if suffix == "streams" else 1
        if engine == "openvino":
            settings[f"{name} {precision}"] = openvino_settings(precision, threads, streams)
        elif engine == "onnxruntime":
            settings[f"{name} {precision}"] = onnxruntime_settings(precision, threads, streams)
        elif engine == "llama.cpp":
            settings[f"{name} {precision}"] = {"contexts": threads, "threads of a context": 1, "pooling": "mean of all"}
    return settings
