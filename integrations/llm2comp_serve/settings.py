"""Settings of a server."""

from dataclasses import dataclass, field
from pathlib import Path

from llm2comp.errors import SettingsError

__all__ = ["ServeSettings"]


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Settings of a server.

    Attributes:
        models: Models to serve: names of bundled models, folders or Hub ids. Those of the indexes are served too.
        indexes: Folders of indexes by the name they are served under.
        device: Device of the models, as in `llm2comp.load`.
        dtype: Precision of the models, as in `llm2comp.load`.
        engine: What computes vectors, as in `llm2comp.load`.
        api_keys: Keys of which a request must carry one, as `Authorization: Bearer KEY`; empty: none is needed.
        cors_origins: Origins whose pages may call the server from a browser.
        writable: Names of indexes whose documents may be added and deleted.
        truncate: Whether a text longer than the model takes is cut, where the request does not say; otherwise it is
            refused.
        max_texts: Texts of a request.
        max_body: Bytes of a request.
        body_seconds: Seconds in which the body of a request must arrive.
        batch_tokens: Tokens that are encoded together; the texts of one request are divided where they have more.
        batching: Whether texts of several requests are encoded together.
        queue_tokens: Tokens that may wait for a model; a request that would make them more is refused (status 429).

    Raises:
        SettingsError: A number is out of its range, or a writable index is not served.
    """

    models: tuple[str, ...] = ()
    indexes: dict[str, Path] = field(default_factory=dict)
    device: str | None = None
    dtype: str = "auto"
    engine: str = "auto"
    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    writable: frozenset[str] = frozenset()
    truncate: bool = True
    max_texts: int = 2048
    max_body: int = 32 << 20
    body_seconds: float = 60.0
    batch_tokens: int = 8192
    batching: bool = True
    queue_tokens: int = 1 << 20

    def __post_init__(self) -> None:
        for name in ("max_texts", "max_body", "body_seconds", "batch_tokens", "queue_tokens"):
            if getattr(self, name) <= 0:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected more than 0")
        if unknown := sorted(self.writable - self.indexes.keys()):
            raise SettingsError(f"{unknown[0]!r} is to be writable, but no index of this name is served")
