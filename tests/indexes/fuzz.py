"""Run as a program: damages files of an index at random, updates the checksums, and uses it with little memory.

The result must be an answer or an LLM2CompError; anything else ends the program with a traceback, or a signal,
and the test sees it.
"""

import json
import random
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from llm2comp.errors import LLM2CompError
from llm2comp_indexes import Effort, SearchOptions, open_index, verify_index
from tests.indexes.forging import forge, forge_file
from tests.word_encoder import WordEncoder

SPARE_BYTES = 1 << 30
EXTREMES = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1, 79, 80, 81, 0x7FC00000, 0x7F800000]
TYPES = [
    "Flat",
    "HNSW16",
    "HNSW2",
    "HNSW500",
    "IVF99999999,Flat",
    "IVF80,Flat",
    "IVF8,PQ16x12",
    "PQ32x24",
    "IMI2x20,Flat",
    "LSH",
    "OPQ32,IVF8,PQ32",
]
TYPES += ["", "x" * 9999, "\0"]


def use(folder: Path) -> None:
    """Reads an index in every way."""
    with open_index(folder, model=WordEncoder()) as index:
        for options in (
            SearchOptions(),
            SearchOptions(mode="bm25"),
            SearchOptions(mode="hybrid", where="year >= 2005 and 'é' in tags"),
            SearchOptions(effort=Effort(nprobe=1 << 20, ef_search=200, rerank=20)),
        ):
            index.search(["bread in the oven", "the moon"], k=7, options=options)
        index.search(["rain"], k=1000)
        for segment in index.segments:
            segment.find_rows([f"d{row}" for row in range(80)])
            segment.read_queries()
    verify_index(folder)


def damage(content: bytes, draw: random.Random) -> bytes:
    """The content with some bytes changed at random."""
    changed = bytearray(content)
    kind = draw.randrange(5)
    if kind == 0 or len(changed) < 16:
        for _ in range(draw.randint(1, 8)):
            if changed:
                changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    elif kind in (1, 2):  # a number, where one might stand
        width = draw.choice([4, 8])
        place = draw.randrange(min(len(changed), 400 if kind == 1 else len(changed)) - width + 1)
        changed[place : place + width] = (draw.choice(EXTREMES) % (1 << 8 * width)).to_bytes(width, "little")
    elif kind == 3:
        place = draw.randrange(len(changed))
        del changed[place : place + draw.randint(1, 64)]
    else:
        place = draw.randrange(len(changed))
        changed[place:place] = draw.randbytes(draw.randint(1, 64))
    return bytes(changed)


def damage_number(manifest: Any, draw: random.Random) -> None:
    """Replaces a value at any depth of the manifest."""
    places: list[tuple[Any, Any]] = []

    def collect(value: Any) -> None:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            places.append((value, key))
            if isinstance(inner, dict | list):
                collect(inner)

    collect(manifest)
    holder, key = draw.choice(places)
    holder[key] = draw.choice([*EXTREMES, -1, 0.5, "", "..", None, True, [], {}, 10**400, "../" * 20 + "etc/passwd"])


def attempts(folder: Path, count: int, draw: random.Random) -> list[tuple[str, Callable[[], None]]]:
    """Damages to try, with names; the first are types for which FAISS would need much memory."""
    names = sorted(json.loads((folder / "manifest.json").read_text())["segments"][0]["files"])

    def rename_type(kind: str) -> None:
        forge(folder, lambda manifest: manifest["segments"][0].update(type=kind))

    def damage_file(name: str, seed: int) -> None:
        if name == "manifest.json":
            forge(folder, lambda manifest: damage_number(manifest, random.Random(seed)))
        else:
            forge_file(folder, name, damage((folder / "segments" / "000001" / name).read_bytes(), random.Random(seed)))

    damages: list[tuple[str, Callable[[], None]]] = [
        (f"type {kind[:40]!r}", partial(rename_type, kind)) for kind in TYPES
    ]
    for number in range(count):
        name, seed = draw.choice([*names, "manifest.json"]), draw.randrange(1 << 30)
        damages.append((f"{number} {name} {seed}", partial(damage_file, name, seed)))
    return damages


def main(folder: Path, count: int, seed: int) -> None:
    """Tries `count` damages; prints the name of each first."""
    original = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    use(folder)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    limit = 1024 * int(status["VmSize"].split()[0]) + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    refused = 0
    for name, attempt in attempts(folder, count, random.Random(seed)):
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
        attempt()
        try:
            use(folder)
        except LLM2CompError:
            refused += 1
        for path, content in original.items():
            path.write_bytes(content)
    use(folder)
    sys.stdout.write(f"done: {refused} refused\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
