"""A table of PostgreSQL that actors of a real cluster fill while they, a node and the command are killed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm2comp_indexes import EncoderOptions, VectorFiles, build_from_vectors, build_index, open_store_index, push_index
from tests.indexes.distributed.made_corpus import write_corpus
from tests.indexes.distributed.ray_processes import TwoNodes, descendants, end_all, environment, wait_for
from tests.indexes.stores.test_push import contents
from tests.postgres_server import PASSWORD, PostgresServer, running_postgres

pytest.importorskip("ray.data", reason="needs the extra ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc of Linux"),
]

MODEL = "llm2comp-tiny"
DRIVER = """
import json, sys
from llm2comp_indexes import ClusterOptions, EncoderOptions, encode_on_ray
corpus, output, to, address = sys.argv[1:5]
cluster = ClusterOptions(address or None, actors=2, object_store=200 << 20, block_tokens=500)
encoder = EncoderOptions(dtype="float32")
report = encode_on_ray(corpus, output, cluster=cluster, model="llm2comp-tiny", encoder=encoder, to=to)
print(json.dumps({**report._asdict(), "folder": "", "pushed": report.pushed._asdict()}))
"""
JOBS = """
import sys
import ray
ray.init(address=sys.argv[1], log_to_driver=False)
print(ray._private.state.state.job_table())
print(ray._private.worker._global_node.get_session_dir_path())
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        server.execute("CREATE EXTENSION vector")
        server.execute(f"CREATE ROLE writer LOGIN PASSWORD '{PASSWORD}'")
        server.execute("GRANT CREATE ON SCHEMA public TO writer")
        yield server


def start(folder: Path, corpus: Path, url: str, address: str = "") -> Any:
    variables = environment(folder)
    if not address:  # the driver itself protects the cluster that it starts
        variables = {name: value for name, value in variables.items() if not name.startswith("RAY_")}
    with (folder / "log").open("a") as errors:
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(corpus), str(folder / "out"), url, address],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def check_table(folder: Path, corpus: Path, url: str, others: list[str]) -> None:
    """Checks that the table is that of the index of the shard, and that questions find what an index finds."""
    encoder = EncoderOptions(dtype="float32")
    build_from_vectors(VectorFiles([folder / "out"]), folder / "joined")
    push_index(folder / "joined", others[0])
    assert contents(url) == contents(others[0])
    build_index([corpus], folder / "plain", model=MODEL, encoder=encoder)
    push_index(folder / "plain", others[1])
    answers = []
    for address in (url, others[1]):
        with open_store_index(address) as index:
            answers.append(index.search(["bread and moon", "the same text everywhere", "river"], k=20))
    for one, other in zip(*answers, strict=True):
        by_id, expected = ({hit.id: hit for hit in hits} for hits in (one, other))
        scores = sorted(hit.score for hit in other)
        for identifier in by_id.keys() ^ expected.keys():  # of equal score at the end of the list
            hit = by_id.get(identifier) or expected.get(identifier)
            assert hit is not None
            assert abs(hit.score - scores[0]) < 1e-4
        for identifier in by_id.keys() & expected.keys():
            assert by_id[identifier][2:] == expected[identifier][2:]
            assert abs(by_id[identifier].score - expected[identifier].score) < 1e-4


def test_a_local_cluster(postgres: PostgresServer, tmp_path: Path) -> None:
    corpus, url = write_corpus(tmp_path / "corpus", rows=100), postgres.url_over_network("writer") + "?table=local"
    driver = start(tmp_path, corpus, url)
    started = set[int]()
    try:
        wait_for(lambda: list(tmp_path.glob("out/.parts/*/*.parquet")), 300, driver)
        commands = descendants(driver.pid)
        started = set(commands)
        assert PASSWORD not in " ".join(commands.values())
        printed, _ = driver.communicate(timeout=300)
    finally:
        started |= set(descendants(driver.pid))
        end_all({driver.pid, *started})
        driver.communicate()
    assert driver.returncode == 0, (tmp_path / "log").read_text()[-3000:]
    report = json.loads(printed)
    # one task reads all of so few bytes, and numbers equal rows itself: the actors wrote every row
    assert (report["documents"], report["pushed"]["rows"], report["pushed"]["added"]) == (400, 400, 0)
    check_table(tmp_path, corpus, url, [postgres.url(table=name) for name in ("local1", "local2")])


def test_actors_a_node_and_the_command_are_killed(postgres: PostgresServer, tmp_path: Path) -> None:
    corpus, url = write_corpus(tmp_path / "corpus", files=6, rows=500), postgres.url_over_network("writer") + "?table=r"
    log = tmp_path / "cluster.log"
    with log.open("w") as errors, TwoNodes(environment(tmp_path), errors) as cluster:
        driver = start(tmp_path, corpus, url, cluster.address)
        try:
            for kind in ("actor", "node", "actor", "driver", "actor", "actor"):
                seen = len(list(tmp_path.glob("out/.parts/*/*.parquet")))
                wait_for(lambda seen=seen: len(list(tmp_path.glob("out/.parts/*/*.parquet"))) > seen + 3, 400, driver)
                assert driver.poll() is None, (tmp_path / "log").read_text()[-3000:]
                if kind == "node":
                    cluster.kill_second_node()
                elif kind == "driver":
                    driver.kill()
                    driver.communicate()
                    driver = start(tmp_path, corpus, url, cluster.address)
                else:
                    wait_for(lambda: cluster.kill_actor(0), 100, driver)
                assert PASSWORD not in " ".join(descendants(cluster._process.pid).values())
            printed, _ = driver.communicate(timeout=600)
        finally:
            driver.kill()
            driver.communicate()
        jobs = subprocess.run(
            [sys.executable, "-c", JOBS, cluster.address], env=environment(tmp_path), capture_output=True, text=True
        )
        assert "'JobID'" in jobs.stdout, jobs.stderr[-2000:]
        assert PASSWORD not in jobs.stdout
        session = Path(jobs.stdout.splitlines()[-1])
        assert list(session.glob("logs/*"))
        leaks = [
            path
            for path in (*session.glob("logs/**/*"), log, tmp_path / "log")
            if path.is_file() and PASSWORD.encode() in path.read_bytes()
        ]
        assert leaks == []
    assert driver.returncode == 0, (tmp_path / "log").read_text()[-3000:]
    report = json.loads(printed)
    assert (report["documents"], report["pushed"]["rows"], report["pushed"]["others"]) == (3000, 3000, 0)
    assert 0 < report["encoded"] < 3000
    check_table(tmp_path, corpus, url, [postgres.url(table=name) for name in ("r1", "r2")])
