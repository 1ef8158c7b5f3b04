"""A stand-in for `worker.Worker` that does jobs in the test's own process."""

import json
from collections.abc import Callable, Mapping
from typing import Any

Jobs = Mapping[str, Callable[..., dict[str, Any]]]


class InProcess:
    """A worker of the module `module`, whose system `open_system` opens."""

    module: str
    open_system: Callable[..., tuple[dict[str, Any], Jobs]]

    def __init__(self, name: str, command: list[str], *, threads: int) -> None:
        assert command[1:3] == ["-m", self.module]
        self.opened, self._jobs = type(self).open_system(**json.loads(command[3]))

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, job: str, **arguments: Any) -> dict[str, Any]:
        answer = self._jobs[job](**arguments)
        json.dumps(answer)  # a process could send it
        return answer
