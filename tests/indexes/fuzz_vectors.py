"""Run as a program: damages .npy files, id files and shards at random, updates checksums, and builds from them.

The result must be an index or an LLM2CompError; anything else ends the program with a traceback, or a signal,
and the test sees it.
"""

import hashlib
import json
import random
import resource
import shutil
import struct
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from llm2comp.errors import LLM2CompError
from llm2comp_indexes import IndexOptions, VectorFiles, build_from_vectors
from llm2comp_indexes.builder.join_shards import ShardSource
from llm2comp_indexes.builder.shard_file import SHARD
from llm2comp_indexes.builder.vector_files import NpySource, NpyVectors
from tests.indexes.fuzz import SPARE_BYTES, damage, damage_number
from tests.word_encoder import WordEncoder

HEADERS = [
    "'<f4'",
    "'<f8'",
    "'>f2'",
    "'|O'",
    "'<i8'",
    "'<U9'",
    "'|V99'",
    "'<f16'",
    "[('a', '<f4')]",
    "'<M8[s]'",
    "True",
    "False",
    "(3,)",
    "(9, 9)",
    "(-1, 16)",
]
HEADERS += [
    "(99999999999, 16)",
    "(4611686018427387904, 4)",
    "(0, 16)",
    "(16, 0)",
    "()",
    "(1, 2, 3)",
    "(2.0, 2)",
    "None",
    "'" + "x" * 5000 + "'",
    "[" * 300,
]
WORDS = ["descr", "fortran_order", "shape"]


def damage_header(content: bytes, draw: random.Random) -> bytes:
    """The .npy file with a value of its header replaced and the length of the header corrected."""
    length = struct.unpack_from("<H", content, 8)[0]
    fields = {"descr": "'<f4'", "fortran_order": "False", "shape": "(40, 16)"}
    fields[draw.choice(WORDS)] = draw.choice(HEADERS)
    if draw.random() < 0.2:
        fields[draw.choice(["shape", "extra", "__class__"])] = "(40, 16)"
    header = "{" + ", ".join(f"'{name}': {value}" for name, value in fields.items()) + "}\n"
    return content[:8] + struct.pack("<H", len(header)) + header.encode() + content[10 + length :]


def read_arrays(folder: Path) -> None:
    """Builds an index from vectors and ids."""
    paths, ids = [folder / "v.npy"], folder / "ids.npy"
    vectors = NpyVectors(paths)
    for block in NpySource(paths, ids).blocks():
        assert block.read().shape == (len(block.rows), vectors.dimension)
    build_from_vectors(VectorFiles(paths, ids, folder / "q.npy"), folder / "idx", options=IndexOptions(type="flat"))


def join_shards(folder: Path) -> None:
    """Builds an index from shards."""
    source = ShardSource([folder / "shards"], lambda phase, done: None)
    for block in source.blocks():
        assert block.read().shape == (len(block.rows), source.dimension)
    build_from_vectors(
        VectorFiles([folder / "shards"]), folder / "idx", model=WordEncoder(), options=IndexOptions(type="flat")
    )


def forge_shard(folder: Path, name: str, seed: int) -> None:
    """Damages shard.json, or a file of rows and its record, and updates the checksum."""
    draw, manifest = random.Random(seed), json.loads((folder / SHARD).read_text())
    if name == SHARD:
        damage_number(manifest, draw)
    else:
        path = folder / "rows" / name
        content = damage(path.read_bytes(), draw)
        path.write_bytes(content)
        manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.pop("checksum", None)
    manifest["checksum"] = hashlib.sha256(
        json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()
    (folder / SHARD).write_text(json.dumps(manifest))


def forge_array(path: Path, seed: int) -> None:
    """Damages the header or any byte of a .npy file."""
    draw = random.Random(seed)
    path.write_bytes((damage_header if draw.random() < 0.5 else damage)(path.read_bytes(), draw))


def attempts(
    folder: Path, count: int, draw: random.Random
) -> list[tuple[str, Callable[[], None], Callable[[Path], None]]]:
    """Damages to try, each with its name and the function that then uses the files."""
    damages: list[tuple[str, Callable[[], None], Callable[[Path], None]]] = []
    for number in range(count):
        seed = draw.randrange(1 << 30)
        if number % 2:
            name = draw.choice(["v.npy", "v.npy", "ids.npy", "q.npy"])
            damages.append((f"{number} {name} {seed}", partial(forge_array, folder / name, seed), read_arrays))
        else:
            shard = folder / "shards" / f"shard-{draw.randint(1, 3)}-of-3"
            name = draw.choice([SHARD, SHARD, *sorted(path.name for path in (shard / "rows").iterdir())])
            damages.append(
                (f"{number} {shard.name} {name} {seed}", partial(forge_shard, shard, name, seed), join_shards)
            )
    return damages


def main(folder: Path, count: int, seed: int) -> None:
    """Tries `count` damages; prints the name of each first."""
    original = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    read_arrays(folder)
    shutil.rmtree(folder / "idx")
    join_shards(folder)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    limit = 1024 * int(status["VmSize"].split()[0]) + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    refused = 0
    for name, attempt, use in attempts(folder, count, random.Random(seed)):
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
        shutil.rmtree(folder / "idx", ignore_errors=True)
        attempt()
        try:
            use(folder)
        except LLM2CompError as error:
            if "\n" in str(error):
                raise AssertionError("a message of several lines") from error
            refused += 1
        for path, content in original.items():
            path.write_bytes(content)
    sys.stdout.write(f"done: {refused} refused\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
