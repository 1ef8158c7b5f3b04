"""Peers of the encoding benchmark by name: the precisions they run in, the packages they need, and their settings."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from llm2comp.optional import optional_import
from llm2comp_benchmarks.cost.encode.peer_openvino import openvino_settings

__all__ = ["ENGINES", "PEERS", "check_engines", "engine_settings", "engine_systems"]


class Engine(NamedTuple):
    """A peer that runs on a CPU, in an engine of its own.

    Attributes:
        precisions: Precisions it is measured in, bfloat16 only where ours is.
        packages: Packages it needs, by their names when imported.
    """

    precisions: tuple[str, ...]
    packages: tuple[str, ...]


ENGINES = {
    "openvino": Engine(("float32", "bfloat16", "int8"), ("openvino", "nncf")),
    "openvino-streams": Engine(("float32", "bfloat16", "int8"), ("openvino", "nncf")),
}
"""Engines by name. They run in our own environment, with the extra `peers`."""

PEERS = ("sentence-transformers", "transformers", *ENGINES)
"""Peers that run in our own environment, on a plain export of the same weights."""


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
    streams = {"openvino": 1, "openvino-streams": threads}
    return {
        f"{name} {precision}": openvino_settings(precision, threads, streams[name])
        for name, precision in systems
        if name in streams
    }
