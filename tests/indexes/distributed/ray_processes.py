"""Processes of a Ray cluster that a test started: found by their parents, never by their names alone."""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

ACTOR = "ray::MapWorker"


def environment(folder: Path) -> dict[str, str]:
    """Variables of a process of a test: modules as here, a token, the loopback interface, and no reports."""
    token = folder / "token"
    if not token.exists():
        token.touch(mode=0o600)
        token.write_text(os.urandom(32).hex())
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_worker_niceness": "0",
    }


def descendants(process: int) -> dict[int, str]:
    """Command lines of the processes that the process started, and that these started, by their ids."""
    parents, names = dict[int, int](), dict[int, str]()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                names[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    below, added = {process}, True
    while added:
        new = {child for child, parent in parents.items() if parent in below} - below
        added = bool(new)
        below |= new
    return {child: names[child] for child in below - {process} if names.get(child)}


def actors(process: int) -> list[int]:
    """Ids of the processes below this one that encode."""
    return sorted(child for child, name in descendants(process).items() if name.startswith(ACTOR))


def listening_addresses(processes: set[int]) -> set[str]:
    """Addresses on which the processes accept connections."""
    sockets = set[str]()
    for process in processes:
        try:
            for link in Path(f"/proc/{process}/fd").iterdir():
                if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link)):
                    sockets.add(match[1])
        except OSError:
            continue
    addresses = set[str]()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                addresses.add(_address(fields[1].partition(":")[0]))
    return addresses


def _address(text: str) -> str:
    words = [struct.pack("=I", int(text[place : place + 8], 16)) for place in range(0, len(text), 8)]
    packed = b"".join(words)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def wait_for(what: Callable[[], Any], seconds: float, process: "subprocess.Popen[Any] | None" = None) -> Any:
    """The first true value that the function returns; the test fails after so many seconds, or if the process ends."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        if process is not None and process.poll() is not None:
            return what()
        time.sleep(0.05)
    raise AssertionError(f"nothing after {seconds} s")


def end_all(processes: set[int]) -> None:
    """Ends the processes by their ids."""
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


_HOLDER = """
import sys
from ray.cluster_utils import Cluster
settings = {"num_cpus": 1, "object_store_memory": 200 << 20}
cluster = Cluster(initialize_head=True, connect=False, head_node_args={**settings, "include_dashboard": False})
def add():
    node = cluster.add_node(wait=False, **settings)
    print(node.all_processes["raylet"][0].process.pid, flush=True)
print(cluster.address, flush=True)
add()
for _ in sys.stdin:
    add()
"""


class TwoNodes:
    """A cluster of two nodes with one CPU each; a context manager that ends all its processes."""

    def __init__(self, variables: Mapping[str, str], log: IO[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER],
            env=dict(variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )

    def __enter__(self) -> "TwoNodes":
        self.address = self._line()
        self.second = int(self._line())
        return self

    def __exit__(self, *error: object) -> None:
        below = set(descendants(self._process.pid))
        end_all({self._process.pid, *below})
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the cluster did not start"
        return line

    def kill_actor(self, number: int) -> bool:
        """Kills one of the actors; whether there was one."""
        there = actors(self._process.pid)
        if not there:
            return False
        end_all({there[number % len(there)]})
        return True

    def kill_second_node(self) -> None:
        """Kills the raylet of the second node, with which its workers end, and starts another node in its place."""
        below = set(descendants(self.second))
        end_all({self.second, *below})
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.second = int(self._line())
