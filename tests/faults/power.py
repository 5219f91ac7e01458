"""A power cut, as far as a process can tell: what was never fsynced may be gone, files and names alike.

A kill leaves everything in the operating system's cache; the disk after a power cut may hold any part of what was not
flushed (Pillai et al., OSDI 2014). So the worker's fsyncs are noted outside its state, and after a kill whatever is
not covered by one is kept, cut short, emptied or undone, as the seed has it.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator


class Fsyncs:
    """The worker's side: notes every fsync, with what it covers."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def install(self) -> None:
        fsync = os.fsync

        def noted(descriptor: int) -> None:
            fsync(descriptor)
            os.write(self._descriptor, json.dumps(_covered(descriptor)).encode() + b"\n")

        os.fsync = noted  # type: ignore[assignment]


def _covered(descriptor: int) -> dict[str, Any]:
    """Of a file its length and time of change, of a folder the inodes by name."""
    found = os.fstat(descriptor)
    if not stat.S_ISDIR(found.st_mode):
        return {"inode": found.st_ino, "content": [found.st_size, found.st_mtime_ns]}
    with os.scandir(descriptor) as entries:
        return {"inode": found.st_ino, "names": {entry.name: entry.inode() for entry in entries}}


def cut_power(state: Path, fsyncs: Path, rng: Rng) -> str | None:
    """Makes of a killed worker's folder one of the states that a power cut may leave; says how much that changed."""
    content: dict[int, list[int]] = {}
    names: dict[int, dict[str, int]] = {}
    for line in fsyncs.read_bytes().splitlines():
        covered = json.loads(line)
        if "content" in covered:
            content[covered["inode"]] = covered["content"]
        else:
            names[covered["inode"]] = covered["names"]
    lost = [path for path in sorted(state.rglob("*")) if path.is_file() and _lose_content(path, content, rng)]
    folders = [state, *sorted(path for path in state.rglob("*") if path.is_dir())]
    undone = sum(_lose_names(folder, names, rng) for folder in folders if folder.is_dir())
    return f"power cut ({len(lost)} files and {undone} names lost)"


def _lose_content(path: Path, content: dict[int, list[int]], rng: Rng) -> bool:
    """Whether the file was not flushed as it is, and lost something."""
    found = path.stat()
    durable = content.get(found.st_ino, [0, 0])
    if durable == [found.st_size, found.st_mtime_ns] or rng.random() < 0.3:
        return False
    flushed = min(durable[0], found.st_size)
    os.truncate(path, flushed if rng.random() < 0.5 else int(rng.integers(flushed, found.st_size + 1)))
    return path.stat().st_size < found.st_size


def _lose_names(folder: Path, names: dict[int, dict[str, int]], rng: Rng) -> int:
    """How many names were undone: new ones go, renamed ones become what they were."""
    durable = names.get(folder.stat().st_ino, {})
    before = {inode: name for name, inode in durable.items()}
    undone = 0
    for path in sorted(folder.iterdir()):
        inode = path.stat().st_ino
        if durable.get(path.name) == inode or rng.random() < 0.3:
            continue
        old = before.get(inode)
        if old is not None and not (folder / old).exists():
            path.rename(folder / old)
        elif path.name in durable:
            continue  # what it replaced cannot be had back
        else:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        undone += 1
    return undone
