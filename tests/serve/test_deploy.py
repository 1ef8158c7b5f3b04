"""The Dockerfile and the systemd unit: what can be checked of them without building an image."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest

from tests.paths import ROOT

DEPLOY = ROOT / "deploy"
LINES = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", " ").splitlines()


def _of(instruction: str) -> list[str]:
    return [line.split(" ", 1)[1].strip() for line in LINES if line.startswith(instruction + " ")]


def test_copied_files_exist_and_hold_every_package() -> None:
    copied = {name for line in _of("COPY") for name in line.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    packages = re.findall(r'^    "([a-z_0-9/]+)",$', _hatch_packages(), re.M)
    assert packages
    assert {package.split("/")[0] for package in packages} <= copied


def _hatch_packages() -> str:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    return text.split("[tool.hatch.build.targets.wheel]")[1].split("]\n")[0]


def test_the_server_does_not_run_as_root() -> None:
    users = _of("USER")
    assert users
    assert users[-1] != "root"
    assert LINES.index(f"USER {users[-1]}") < next(n for n, line in enumerate(LINES) if line.startswith("ENTRYPOINT"))


def test_entry_point_is_a_command_that_needs_a_key() -> None:
    pytest.importorskip("fastapi")
    [entry] = _of("ENTRYPOINT")
    arguments = [str(part) for part in json.loads(entry)]
    assert arguments[:2] == ["llm2comp", "serve"]
    done = subprocess.run(
        [sys.executable, "-m", "llm2comp", *arguments[1:]], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "/run/keys/api-keys: the keys cannot be read" in done.stderr


def test_systemd_takes_the_unit() -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd on this machine")
    done = subprocess.run([analyze, "verify", str(DEPLOY / "llm2comp.service")], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "llm2comp.service" in line]
    assert [line for line in complaints if "is not executable" not in line] == []


@pytest.mark.slow
@pytest.mark.network
def test_commands_of_the_image_in_a_fresh_environment(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The `RUN pip` lines in a new virtual environment, then the entry point and the health check."""
    folder = tmp_path_factory.mktemp("image")
    for name in {name for line in _of("COPY") for name in line.split()[:-1]}:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    environment = {"PATH": f"{folder / 'venv' / 'bin'}:/usr/bin:/bin", "HOME": str(folder)}
    for step in _of("RUN"):
        if step.startswith("pip"):
            subprocess.run(step, shell=True, check=True, cwd=folder, env=environment)
    keys = folder / "keys"
    keys.write_text("secret\n")
    [entry] = _of("ENTRYPOINT")
    command = [str(keys) if part == "/run/keys/api-keys" else part for part in json.loads(entry)]
    [health] = re.findall(r"CMD (.*)", next(line for line in LINES if line.startswith("HEALTHCHECK")))
    server = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 180
        while subprocess.run(shlex.split(health), env=environment, capture_output=True).returncode:
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < end, "the health check still fails after three minutes"
            time.sleep(1)
    finally:
        server.terminate()
        server.wait(60)
