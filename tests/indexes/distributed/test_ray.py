"""Encoding on real clusters of Ray: equal to one process, protected, and whole whatever is killed."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llm2comp_indexes import EncoderOptions, encode_shard
from llm2comp_indexes.builder.shard_file import read_shard
from llm2comp_indexes.format.documents import DocumentReader
from llm2comp_indexes.format.vectors import open_storage
from tests.indexes.distributed.made_corpus import write_corpus
from tests.indexes.distributed.ray_processes import (
    TwoNodes,
    actors,
    descendants,
    end_all,
    environment,
    listening_addresses,
    wait_for,
)

pytest.importorskip("ray.data", reason="needs the extra ray")
pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc of Linux")

MODEL = "llm2comp-tiny"
DRIVER = """
import json, signal, sys
from llm2comp_indexes import ClusterOptions, EncoderOptions, encode_on_ray
corpus, output, address, block_tokens = sys.argv[1:5]
handler = signal.getsignal(signal.SIGTERM)
cluster = ClusterOptions(address or None, actors=2, object_store=200 << 20, block_tokens=int(block_tokens))
report = encode_on_ray(corpus, output, cluster=cluster, model="llm2comp-tiny", encoder=EncoderOptions(dtype="float32"))
assert signal.getsignal(signal.SIGTERM) == handler
print(json.dumps({**report._asdict(), "folder": str(report.folder)}))
"""
DATASET_DRIVER = """
import json, sys
import ray
from llm2comp_indexes import ClusterOptions, EncoderOptions, encode_dataset
corpus, output, blocks, block_tokens = sys.argv[1:5]
ray.init("local", num_cpus=3, object_store_memory=200 << 20, include_dashboard=False)
dataset = ray.data.read_json(corpus, override_num_blocks=int(blocks))
cluster = ClusterOptions(actors=2, block_tokens=int(block_tokens))
encoder = EncoderOptions(dtype="float32")
report = encode_dataset(dataset, output, cluster=cluster, model="llm2comp-tiny", encoder=encoder)
print(json.dumps({**report._asdict(), "folder": str(report.folder)}))
"""


def start_driver(corpus: Path, output: Path, log: Path, address: str = "", block_tokens: int = 500) -> Any:
    arguments = [str(corpus), str(output), address, str(block_tokens)]
    variables = environment(log.parent)
    if not address:  # the driver itself protects the cluster that it starts
        variables = {name: value for name, value in variables.items() if not name.startswith("RAY_")}
    with log.open("a") as errors:
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, *arguments], env=variables, stdout=subprocess.PIPE, stderr=errors, text=True
        )


def read_result(folder: Path) -> tuple[list[bytes], NDArray[np.float32]]:
    """Lines of all documents, and their vectors."""
    shard = read_shard(folder)
    reader = DocumentReader(folder / "rows" / "documents.jsonl", folder / "rows" / "documents.offsets", shard.rows)
    storage = open_storage(
        folder / "rows" / "vectors.faiss", rows=shard.rows, dimension=shard.dimension, store=shard.options.store
    )
    return [reader.line(row) for row in range(shard.rows)], storage.fetch(np.arange(shard.rows))


def check_equal(corpus: Path, output: Path, plain: Path) -> None:
    """Checks that the shard is the one that a single process makes: its documents in order, its vectors to 1e-5."""
    encode_shard(corpus, plain, model=MODEL, encoder=EncoderOptions(dtype="float32"))
    lines, vectors = read_result(output / "shard-1-of-1")
    expected_lines, expected = read_result(plain / "shard-1-of-1")
    assert lines == expected_lines
    assert np.abs(vectors - expected).max() <= 1e-5
    one, other = (read_shard(folder / "shard-1-of-1") for folder in (output, plain))
    assert one.corpus_sha256 == other.corpus_sha256
    assert not (output / ".parts").exists()


def test_local_cluster_with_a_killed_actor(tmp_path: Path) -> None:
    corpus, output, log = write_corpus(tmp_path / "corpus", rows=200), tmp_path / "out", tmp_path / "log"
    driver = start_driver(corpus, output, log)
    started = set[int]()
    try:
        wait_for(lambda: list(output.glob(".parts/*/*.parquet")), 200, driver)
        started = set(descendants(driver.pid))
        assert listening_addresses(started | {driver.pid}) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        victims = actors(driver.pid)
        if victims:  # else all is encoded already
            os.kill(victims[0], signal.SIGKILL)
        printed, _ = driver.communicate(timeout=200)
    finally:
        started |= set(descendants(driver.pid))
        end_all({driver.pid, *started})
    assert driver.returncode == 0, log.read_text()
    assert log.read_text() == "4 rows without title and text: not indexed\n"
    report = json.loads(printed)
    assert report["documents"] == 800
    assert report["actors"] == 2
    assert report["spilled"] == 0
    assert report["empty"] == 4
    check_equal(corpus, output, tmp_path / "plain")


@pytest.mark.slow
def test_two_nodes_and_twenty_kills(tmp_path: Path) -> None:
    corpus, output, log = write_corpus(tmp_path / "corpus", files=8, rows=1000), tmp_path / "out", tmp_path / "log"
    draw = random.Random(11)
    seen, rewritten, ended = dict[Path, int](), list[Path](), threading.Event()

    def watch() -> None:
        while not ended.is_set():
            for path in output.glob(".parts/*/[0-9]*.parquet"):
                try:
                    inode = path.stat().st_ino
                except OSError:
                    continue
                if seen.setdefault(path, inode) != inode:
                    rewritten.append(path)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    kills = {"actor": 0, "node": 0, "driver": 0}
    printed = ""
    with (tmp_path / "cluster.log").open("w") as errors, TwoNodes(environment(tmp_path), errors) as cluster:
        driver = start_driver(corpus, output, log, cluster.address)
        try:
            while sum(kills.values()) < 20:
                before = len(seen)
                wait_for(lambda before=before: len(seen) > before, 300, driver)
                time.sleep(draw.uniform(0, 2))
                if driver.poll() is not None:
                    break
                kind = draw.choice(("actor", "actor", "actor", "node", "driver"))
                if kind == "actor" and not cluster.kill_actor(draw.randrange(9)):
                    continue
                if kind == "node":
                    cluster.kill_second_node()
                if kind == "driver":
                    driver.kill()
                    driver.communicate()
                    driver = start_driver(corpus, output, log, cluster.address)
                kills[kind] += 1
            printed, _ = driver.communicate(timeout=600)
        finally:
            driver.kill()
            driver.communicate()
            ended.set()
            watcher.join()
    assert driver.returncode == 0, log.read_text()[-3000:]
    assert json.loads(printed)["documents"] == 8000
    assert sum(kills.values()) >= 20, f"all was encoded after {kills}"
    assert rewritten == []  # what was written was not encoded again
    check_equal(corpus, output, tmp_path / "plain")


@pytest.mark.slow
def test_dataset_whose_driver_was_killed(tmp_path: Path) -> None:
    corpus, output, log = write_corpus(tmp_path / "corpus", files=6, rows=500), tmp_path / "out", tmp_path / "log"

    def start(blocks: int) -> Any:
        arguments = [str(corpus), str(output), str(blocks), "500"]
        with log.open("a") as errors:
            return subprocess.Popen(
                [sys.executable, "-c", DATASET_DRIVER, *arguments],
                env=environment(tmp_path),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    driver = start(6)
    try:
        wait_for(lambda: len(list(output.glob(".parts/*/*.parquet"))) > 10, 300, driver)
        end_all({driver.pid, *descendants(driver.pid)})
        driver.communicate()
        driver = start(3)  # other blocks: documents are known by their ids
        printed, _ = driver.communicate(timeout=400)
    finally:
        end_all({driver.pid, *descendants(driver.pid)})
    assert driver.returncode == 0, log.read_text()[-3000:]
    report = json.loads(printed.splitlines()[-1])
    assert 0 < report["encoded"] < report["rows"]
    encode_shard(corpus, tmp_path / "plain", model=MODEL, encoder=EncoderOptions(dtype="float32"))
    lines, vectors = read_result(output / "shard-1-of-1")
    expected_lines, expected = read_result(tmp_path / "plain" / "shard-1-of-1")
    place = {json.loads(line)["id"]: row for row, line in enumerate(expected_lines)}
    ids = [json.loads(line)["id"] for line in lines]
    given = [name for name in ids if name.startswith("d")]
    assert sorted(given) == sorted(name for name in place if name.startswith("d"))
    rows = [row for row, name in enumerate(ids) if name.startswith("d")]
    assert np.abs(vectors[rows] - expected[[place[name] for name in given]]).max() <= 1e-5
    texts = {json.loads(line)["text"] for line in lines}
    assert texts == {json.loads(line)["text"] for line in expected_lines}
