"""What a disk would hold if the power failed: only what was fsynced is sure to be there; names may have changed before their folder was."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

Tree = dict[str, bytes | None]
"""Contents of files by path, and None for a folder."""

_CHANGES_NAMES = ("replace", "rename", "unlink", "rmdir", "mkdir", "link")


class _Folder(NamedTuple):
    names: dict[str, int]
    """Inodes by name."""


class Disk:
    """Follows a folder, and keeps what might be found in it after a power failure at each moment.

    Attributes:
        states: All such trees, in the order in which they were first possible.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._descriptors: dict[int, int] = {}  # held open, so that no inode is given out a second time
        self._files: dict[int, bytes] = {}  # by inode, as of the last fsync
        self._folders: dict[int, _Folder] = {}
        self.states: list[Tree] = []
        self._note_new()
        for inode in list(self._descriptors):
            self._sync(inode)
        self._keep()

    @property
    def certain(self) -> Tree:
        """What is durable now, whatever happens."""
        return self._tree(lambda inode: self._folders.get(inode, _Folder({})).names)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within it, every fsync and every change of a name in this process is followed."""
        fsync = os.fsync

        def follow_fsync(descriptor: int) -> None:
            self._note_new()
            fsync(descriptor)
            self._sync(os.fstat(descriptor).st_ino)
            self._keep()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", follow_fsync)
            for name in _CHANGES_NAMES:
                patch.setattr(os, name, self._following(getattr(os, name)))
            yield

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    def _following(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def through(*arguments: Any, **keywords: Any) -> Any:
            self._note_new()
            result = call(*arguments, **keywords)
            self._note_new()
            self._keep()
            return result

        return through

    def _note_new(self) -> None:
        for folder, _, files in os.walk(self._root):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                inode = os.lstat(path).st_ino
                if inode not in self._descriptors:
                    self._descriptors[inode] = os.open(path, os.O_RDONLY)

    def _sync(self, inode: int) -> None:
        descriptor = self._descriptors.get(inode)
        if descriptor is None:
            return  # a folder above
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self._folders[inode] = _Folder(self._names(inode))
        else:
            self._files[inode] = os.pread(descriptor, os.fstat(descriptor).st_size, 0)

    def _names(self, inode: int) -> dict[str, int]:
        """As they are now."""
        descriptor = self._descriptors[inode]
        return {name: os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_ino for name in os.listdir(descriptor)}

    def _keep(self) -> None:
        for tree in (self.certain, self._tree(self._names)):
            if tree not in self.states:
                self.states.append(tree)

    def _tree(self, names: Callable[[int], dict[str, int]]) -> Tree:
        found: Tree = {}
        left = [("", os.stat(self._root).st_ino)]
        while left:
            path, inode = left.pop()
            for name, child in names(inode).items():
                if stat.S_ISDIR(os.fstat(self._descriptors[child]).st_mode):
                    found[f"{path}{name}"] = None
                    left.append((f"{path}{name}/", child))
                else:
                    found[f"{path}{name}"] = self._files.get(child, b"")
        return found


def lay_out(tree: Tree, root: Path) -> Path:
    """The tree as real files below the new folder `root`."""
    root.mkdir()
    for path, content in sorted(tree.items()):
        if content is None:
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
    return root
