"""Model of a disk at a power failure.

Contents of a file last from its fsync. A changed name may last at once, and lasts surely from the fsync of its folder.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

Tree = dict[str, bytes | None]
"""Contents of files by path; None for a folder."""

_CHANGES_NAMES = ("replace", "rename", "unlink", "rmdir", "mkdir", "link")


class _Folder(NamedTuple):
    names: dict[str, int]
    """Inodes by name."""


class Disk:
    """Follows a folder and keeps what it may hold after a power failure at each moment.

    Attributes:
        states: All such trees, in the order in which they were first possible.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._descriptors: dict[int, int] = {}  # kept open, so that no inode is used twice
        self._files: dict[int, bytes] = {}  # by inode, as of the last fsync
        self._folders: dict[int, _Folder] = {}
        self.states: list[Tree] = []
        self._note_new()
        for inode in list(self._descriptors):
            self._sync(inode)
        self._keep()

    @property
    def certain(self) -> Tree:
        """Content that is durable now."""
        return self._tree(lambda inode: self._folders.get(inode, _Folder({})).names)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While active, every fsync and every change of a name in this process is followed."""
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
        """The folder's current names."""
        descriptor = self._descriptors[inode]
        return {name: os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_ino for name in os.listdir(descriptor)}

    def _keep(self) -> None:
        for tree in (self.certain, self._tree(self._names)):
            if tree not in self.states:
                self.states.append(tree)

    def _tree(self, names: Callable[[int], dict[str, int]]) -> Tree:
        tree: Tree = {}
        left = [("", os.stat(self._root).st_ino)]
        while left:
            path, inode = left.pop()
            for name, child in names(inode).items():
                if stat.S_ISDIR(os.fstat(self._descriptors[child]).st_mode):
                    tree[f"{path}{name}"] = None
                    left.append((f"{path}{name}/", child))
                else:
                    tree[f"{path}{name}"] = self._files.get(child, b"")
        return tree


def lay_out(tree: Tree, root: Path) -> Path:
    """Writes the tree as real files below the new folder `root`."""
    root.mkdir()
    for path, content in sorted(tree.items()):
        if content is None:
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
    return root
