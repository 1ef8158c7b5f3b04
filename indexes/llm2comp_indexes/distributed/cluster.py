"""A connection to a cluster of Ray: one that runs already, or one of this machine alone that ends with the block."""

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llm2comp.errors import ClusterError, one_line
from llm2comp.optional import optional_import
from llm2comp_indexes.distributed.capacity import NodeFree

__all__ = ["connected", "free_nodes", "spilled_bytes"]

_OBJECT_STORE = 256 << 20
"""Bytes of the object store of a cluster that is started here: it holds blocks of text on their way only."""

_CONNECT_SECONDS = 10.0
_ATTEMPTS = "RAY_gcs_server_port_wait_time_s"
_OF_THIS_PROCESS = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # errors are raised
    # a killed command keeps its share of the CPUs for so long; Ray asks for it anew every ten seconds
    "RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S": "30",
}
_tokens: list[str] = []
"""The token of the clusters that this process starts, which Ray keeps from the first of them on."""


@contextmanager
def connected(address: str | None, *, object_store: int = _OBJECT_STORE) -> Iterator[Any]:
    """The module `ray`, connected.

    A process that is connected already stays so. Otherwise the connection ends with the block, and with it a cluster
    that was started here; other clusters are never ended. The handler of SIGTERM, which Ray replaces, is put back.

    Args:
        address: `auto`, `HOST:PORT` or `ray://HOST:PORT` of a cluster; None: one is started on this machine. It listens
            on the loopback interface only, admits who has its token, and reports nothing about its use.
        object_store: Bytes of the object store of a cluster that is started.

    Raises:
        ClusterError: Ray is not installed, no cluster answers, or this process is connected to another one.
    """
    with ExitStack() as opened:
        if address is None and not _is_connected():
            opened.enter_context(_local_settings())
        opened.enter_context(_environment(_OF_THIS_PROCESS))
        for module in ("ray", "ray.data"):
            optional_import(module, extra="ray", needed_by="an encoding on a cluster", error_type=ClusterError)
        import ray

        opened.enter_context(_quiet())
        if ray.is_initialized():
            if address is not None:
                raise ClusterError(
                    f"this process is connected to a cluster of Ray, and {address} is another one, or the same once "
                    "more; leave the address out, or call ray.shutdown() before"
                )
            yield ray
            return
        folder = opened.enter_context(_temporary_folder()) if address is None else None
        with _sigterm_kept():
            try:
                _check_answers(address)
                with _stderr_closed(), _arguments_hidden(ray):  # Ray writes there which level its log has
                    _start(ray, address, folder, object_store)
            except Exception as error:  # Ray raises errors of many classes
                ray.shutdown()
                where = "a cluster on this machine" if address is None else f"the cluster {address}"
                raise ClusterError(
                    f"{where} cannot be reached ({one_line(error)}); see that it runs and admits this host "
                    "(RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH), or name another one with --ray-address"
                ) from error
        opened.enter_context(_messages_hidden(ray))  # also those that are held back until the end
        try:
            yield ray
        finally:
            with _sigterm_kept():
                ray.shutdown()


def _check_answers(address: str | None) -> None:
    """Raises OSError unless something accepts connections there: Ray itself would try for minutes.

    Raises:
        ValueError: The address has no port.
    """
    if address == "auto":  # RAY_ADDRESS, or a file that a cluster leaves behind when it is killed
        services: Any = import_module("ray._private.services")
        address = services.get_ray_address_from_environment("auto", None)
    if address is None or address == "auto":
        return
    place = urlsplit(address if "://" in address else f"ray://{address}")
    if place.hostname is None or place.port is None:
        raise ValueError("expected auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((place.hostname, place.port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise OSError(f"nothing answers at {place.hostname}:{place.port}: {one_line(error)}") from error


def _start(ray: Any, address: str | None, folder: Path | None, object_store: int) -> None:
    """Connects to the cluster, or starts one with its files in the folder."""
    if folder is None:
        # one attempt, of 40 seconds, instead of 20: what answers may be no cluster, or one that wants a token
        attempts = {_ATTEMPTS: os.environ.get(_ATTEMPTS, "1")}
        with _environment(attempts):
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        return
    ray.init(
        address="local",
        num_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        object_store_memory=object_store,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=str(folder),
    )
    hosts = {node["NodeManagerAddress"] for node in ray.nodes()}
    if hosts != {"127.0.0.1"}:
        raise ClusterError(f"it listens on {', '.join(sorted(hosts))}, expected the loopback interface only")


@contextmanager
def _stderr_closed() -> Iterator[None]:
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _is_connected() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextmanager
def _local_settings() -> Iterator[None]:
    """The environment of a cluster of this machine: a token, no reports about its use, the loopback interface only."""
    if "ray" in sys.modules and not _tokens:
        raise ClusterError(
            "Ray was imported before, and reads at its import how a cluster is protected; call ray.init() first with "
            "what you want, or leave Ray to this call in a process of its own (llm2comp encode --on ray)"
        )
    if not _tokens:
        _tokens.append(secrets.token_hex(32))
    with tempfile.TemporaryDirectory(prefix="llm2comp-") as folder, ExitStack() as changed:
        token = Path(folder, "token")
        token.touch(mode=0o600)
        token.write_text(_tokens[0])
        changed.enter_context(
            _environment(
                {
                    "RAY_AUTH_MODE": "token",
                    "RAY_AUTH_TOKEN_PATH": str(token),
                    "RAY_USAGE_STATS_ENABLED": "0",
                    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as there, Ray then takes the loopback address
                    "RAY_worker_niceness": "0",  # actors get as much of a busy machine as a process without Ray
                }
            )
        )
        yield


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder for sockets, logs and spilled blocks, which only this user can enter."""
    folder = Path(tempfile.mkdtemp(prefix="llm2comp-ray-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if handler is None else handler)


@contextmanager
def _messages_hidden(ray: Any) -> Iterator[None]:
    """Ray prints on standard output, where results go, that a process ended and is begun again; the report says so."""
    worker = ray._private.worker
    before, worker._worker_logs_enabled = worker._worker_logs_enabled, False
    try:
        yield
    finally:
        worker._worker_logs_enabled = before


@contextmanager
def _arguments_hidden(ray: Any) -> Iterator[None]:
    """Ray shows the command line of a job to everyone, and an address in it may have a password: its name is enough."""
    utils = ray._private.utils
    before, utils.get_entrypoint_name = utils.get_entrypoint_name, lambda: Path(sys.argv[0]).name
    try:
        yield
    finally:
        utils.get_entrypoint_name = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray's own lines about its execution are left out: errors are raised, and progress is counted here."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.data")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def free_nodes(ray: Any) -> list[NodeFree]:
    """What is free on each node of the cluster."""
    state: Any = import_module("ray._private.state")
    free = state.available_resources_per_node()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return [
        NodeFree(
            node["NodeManagerAddress"],
            cpus=free.get(node["NodeID"], {}).get("CPU", 0.0),
            gpus=free.get(node["NodeID"], {}).get("GPU", 0.0),
            memory=int(free.get(node["NodeID"], {}).get("memory", 0)),
            all_cpus=node["Resources"].get("CPU", 0.0),
            all_gpus=node["Resources"].get("GPU", 0.0),
        )
        for node in nodes
    ]


def spilled_bytes(ray: Any) -> int | None:
    """Bytes that the object stores of the cluster have written to disk so far; None if it does not say."""
    internal: Any = import_module("ray._private.internal_api")
    try:
        address = ray.get_runtime_context().gcs_address
        reply = internal.get_memory_info_reply(internal.get_state_from_address(address))
        return int(reply.store_stats.spilled_bytes_total)
    except Exception:  # a private function of Ray, whose number is a nicety
        return None
