"""Names of models: a bundled model, a folder and a Hub id mean the same in `load`, every command and the adapters.

This is the only place that knows the bundled models, so it imports nothing heavy.
"""

import json
import logging
import os
from functools import cache
from pathlib import Path

__all__ = [
    "BUNDLED_OWNER",
    "DEFAULT_MODEL",
    "as_folder",
    "bundled_folder",
    "bundled_name",
    "bundled_names",
    "find_bundled",
    "full_name",
    "model_names",
    "resolve_name",
]

DEFAULT_MODEL = "llm2comp-tiny"
"""Name of the bundled model that is used where none is named."""

BUNDLED_OWNER = "llm2comp"
"""Owner of the bundled models in names of the form owner/name; they are on no Hub."""

_FOLDER = Path(__file__).parent / "bundled"
_MODEL_FILES = ("llm2comp.json", "modules.json")
_logger = logging.getLogger(__name__)


def bundled_names() -> list[str]:
    """Names of the models that come with the package, sorted."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/llm2comp.json"))


def model_names() -> str:
    """What can be given as the name of a model, for messages: the bundled ones by name, a folder, a Hub id."""
    return f"a bundled model ({', '.join(bundled_names())}), a folder, or a Hub id such as owner/name"


def bundled_folder(name: str = DEFAULT_MODEL) -> Path:
    """Folder of the bundled model with this name, one of `bundled_names()`."""
    return _FOLDER / name


def bundled_name(name_or_path: str | Path | None) -> str | None:
    """The bundled model that is meant, None if it is a folder or a Hub id.

    A text that is the name of a bundled model always means that model, whichever folder the program runs in; None means
    the default one. A `Path`, and a text with a separator such as `./llm2comp-tiny`, always mean a folder.
    """
    if name_or_path is None:
        return DEFAULT_MODEL
    return name_or_path if isinstance(name_or_path, str) and name_or_path in bundled_names() else None


def find_bundled(fingerprint: str) -> str | None:
    """Name of the bundled model with this fingerprint; None if there is none."""
    return _names_by_fingerprint().get(fingerprint)


@cache  # every manifest and shard that names no model is looked up; the package's files do not change meanwhile
def _names_by_fingerprint() -> dict[str, str]:
    """Names of the bundled models by fingerprint."""
    files = {name: bundled_folder(name) / "llm2comp.json" for name in bundled_names()}
    return {json.loads(file.read_text(encoding="utf-8"))["fingerprint"]: name for name, file in files.items()}


def resolve_name(name_or_path: str | Path | None) -> str:
    """What to load from: the folder of a bundled model, or the folder or Hub id as it is given; see `bundled_name`.

    A model folder with the name of a bundled model in the working directory is not used, and a warning says so.
    """
    name = bundled_name(name_or_path)
    if name is None:
        return str(name_or_path)
    if name_or_path is not None and any(Path(name, file).is_file() for file in _MODEL_FILES):
        _logger.warning(
            "%s is the bundled model; the folder of that name in the working directory is %s", name, as_folder(name)
        )
    return str(bundled_folder(name))


def full_name(name_or_path: str | Path | None) -> str:
    """Name of the form owner/name, as result files and mteb want it.

    A bundled model belongs to `llm2comp`, a folder to `local`; a Hub id stays as it is.
    """
    if (name := bundled_name(name_or_path)) is not None:
        return f"{BUNDLED_OWNER}/{name}"
    folder = Path(str(name_or_path))
    return f"local/{folder.resolve().name}" if folder.exists() else str(name_or_path)


def as_folder(path: str | Path) -> str:
    """The path as a text that means a folder, also where it has the name of a bundled model."""
    text = str(path)
    return os.path.join(os.curdir, text) if bundled_name(text) else text  # a Path would drop the dot
