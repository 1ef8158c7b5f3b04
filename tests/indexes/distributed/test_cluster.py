"""Connecting: an address that nobody answers, or that is none, is one line and at once."""

import socket
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from llm2comp.errors import ClusterError
from llm2comp_indexes.distributed.cluster import connected

pytest.importorskip("ray.data", reason="needs the extra ray")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_nobody_answers(form: str) -> None:
    address = form.format(free_port())
    with pytest.raises(
        ClusterError, match=rf"the cluster {address} cannot be reached \(.*Connection refused.*--ray-addr"
    ):
        connected(address).__enter__()


@pytest.mark.parametrize("kept", ["environment", "file"])
def test_the_cluster_of_this_machine_has_ended(kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself would try for minutes to reach the cluster that the file names."""
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", cache(frozenset))  # others may run some here
    if kept == "environment":
        monkeypatch.setenv("RAY_ADDRESS", address)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(address)
    with pytest.raises(
        ClusterError, match=rf"the cluster auto cannot be reached \(nothing answers at {address}: .*refus"
    ):
        connected("auto").__enter__()


@pytest.mark.slow
def test_what_answers_is_no_cluster() -> None:
    """Ray itself would try for a quarter of an hour."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(ClusterError, match=rf"the cluster {address} cannot be reached"):
            connected(address).__enter__()
        assert time.monotonic() - start < 180


@pytest.mark.parametrize("address", ["", "somewhere", "http//x", "host:port", "local"])
def test_no_address(address: str) -> None:
    with pytest.raises(ClusterError, match=r"expected auto, HOST:PORT or ray://HOST:PORT|Port could not be cast"):
        connected(address).__enter__()


def test_ray_was_imported_before() -> None:
    assert "ray" in sys.modules
    with pytest.raises(ClusterError, match=r"Ray was imported before.*call ray.init\(\) first"):
        connected(None).__enter__()
