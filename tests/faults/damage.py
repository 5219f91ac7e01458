"""What happens to a state folder between two lives, beyond the kill itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

Rng = np.random.Generator


def snapshots(state: Path) -> list[Path]:
    """Those under their final names, oldest first."""
    named = [(path.name.split("-"), path) for path in (state / "snapshots").glob("slide-*")]
    return [path for _, path in sorted(((int(token), int(slide)), path) for (_, slide, token), path in named)]


def torn_snapshot(state: Path, rng: Rng) -> str | None:
    """The newest snapshot is cut short, loses a file, or has a bit flipped, and with it those that share the file; one
    that shares none is whole."""
    standing = snapshots(state)
    if len(standing) < 2:
        return None
    files = sorted(standing[-1].iterdir())
    return f"{standing[-1].name}/{spoil(files[rng.integers(len(files))], rng)}"


def spoil(path: Path, rng: Rng) -> str:
    """Damages a file in one of three ways, and says which."""
    content = bytearray(path.read_bytes())
    way = ("cut short", "removed", "a bit flipped")[rng.integers(3)]
    at = int(rng.integers(len(content)))
    if way == "removed":
        path.unlink()
    elif way == "cut short":
        path.write_bytes(content[:at])
    else:
        content[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
    return f"{path.name} {way}"


def leftovers(state: Path, rng: Rng) -> str:
    """Temporary folders of earlier workers stand about; one that is there loses a file."""
    for parent in (state / "snapshots", state / "checkpoints" / "shop"):
        if parent.is_dir():
            folder = parent / f".tmp-{int(rng.integers(10**6))}"
            folder.mkdir()
            (folder / "variables").write_bytes(b"half of i")
            (parent / f".tmp-champion.json-{int(rng.integers(10**6))}").write_bytes(b"{")
    return "temporary names left"


def torn_journal(state: Path, rng: Rng) -> str | None:
    return _append(state / "journal.jsonl", b'{"kind":"end","slide":3,"partit')


def torn_verdicts(state: Path, rng: Rng) -> str | None:
    return _append(state / "verdicts.jsonl", b'{"baselines":{"item_ra')


def torn_letters(state: Path, rng: Rng) -> str | None:
    return _append(state / "dead_letters.jsonl", b'{"reason":"not_js')


def _append(path: Path, half_a_line: bytes) -> str | None:
    if not path.exists():
        return None
    with path.open("ab") as file:
        file.write(half_a_line)
    return f"half a line behind {path.name}"


def torn_version(state: Path, rng: Rng) -> str | None:
    """A version that no snapshot covers yet has a file damaged. (One that a snapshot covers is not made again.)"""
    covered = max((int(path.name.split("-")[1]) for path in snapshots(state)), default=0)
    for folder in sorted((state / "checkpoints" / "shop").glob("[0-9]*")):
        manifest = json.loads((folder / "manifest.json").read_bytes())
        if manifest["slide"] >= covered:
            name = sorted(manifest["files"])[rng.integers(len(manifest["files"]))]
            return f"version {folder.name}: {spoil(folder / name, rng)}"
    return None


def lost_template(state: Path, rng: Rng) -> str | None:
    """What can be made again is gone."""
    shutil.rmtree(state / "template", ignore_errors=True)
    return "template removed"


DAMAGES: dict[str, Callable[[Path, Rng], str | None]] = {
    "torn snapshot": torn_snapshot,
    "leftovers": leftovers,
    "torn journal": torn_journal,
    "torn verdicts": torn_verdicts,
    "torn letters": torn_letters,
    "torn version": torn_version,
    "lost template": lost_template,
}
