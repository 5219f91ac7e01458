"""What a finished trial left, and whether it is what an uninterrupted worker leaves."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream_learner.ingest.dead_letters import read_dead_letters
from stream_learner.journal import Command, Start, read_journal
from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.storage import LocalStorage

from .ledger import History, read_history
from .stream import ACCEPTED, DEAD, DUPLICATE, IGNORED, LATE, Place, Stream

# Of the process and not of the model: differs with the machine's speed and with the number of lives.
_OF_THE_RUN = (
    "wall_seconds",
    "cpu_seconds",
    "learning_wall_seconds",
    "learning_cpu_seconds",
    "peak_rss_bytes",
    "events_per_second",
    "retraces",
)
_REPORTED = {DEAD: "dead_letters", DUPLICATE: "duplicates", ACCEPTED: "events"}


@dataclass(frozen=True)
class Outcome:
    """All that must be equal, whatever happened on the way."""

    report: dict[str, Any]
    files: dict[
        str, str
    ]  # of the checkpoints folder: path -> SHA-256; manifests and the champion pointer are among them
    verdicts: bytes
    journal: tuple[Any, ...]  # what was given: start and commands
    slides: dict[int, dict[str, Any]]  # events and learned examples by slide, as the ledger has them
    problems: list[str]  # wrong in itself, with nothing to compare


@dataclass(frozen=True)
class Verdict:
    """A trial judged. `lost` and `duplicated` count accepted events, by the ledger against brute force."""

    differences: list[str]
    lost: int
    duplicated: int

    @property
    def equal(self) -> bool:
        return not self.differences and not self.lost and not self.duplicated


def read_outcome(state: Path, report: Path, ledger: Path, stream: Stream) -> tuple[Outcome, History]:
    history = read_history(ledger)
    content = json.loads(report.read_text())
    verdicts = (state / "verdicts.jsonl").read_bytes()
    folder = state / "checkpoints" / "shop"
    checkpoints = Checkpoints(LocalStorage(folder), "shop", keep=2)
    problems = [*history.breaks, *_accounts(content, stream), *_letters(state, stream), *_versions(checkpoints)]
    if history.reach != stream.ends():
        problems.append(f"consumed up to {history.reach}")
    if verdicts.count(b'"kind":"verdict"') != sum(content["verdicts"].values()):
        problems.append("verdicts.jsonl holds other verdicts than were counted")
    outcome = Outcome(
        report={name: value for name, value in content.items() if name not in _OF_THE_RUN},
        files=_sums(folder),
        verdicts=verdicts,
        journal=tuple(e for e in read_journal(state / "journal.jsonl") if isinstance(e, (Start, Command))),
        slides=history.slides,
        problems=problems,
    )
    return outcome, history


def judge(reference: Outcome, outcome: Outcome, history: History, stream: Stream) -> Verdict:
    """Compares part by part, and says in a few words what differs."""
    seen: Counter[Place] = history.accepted
    wanted = stream.accepted
    differences = list(outcome.problems)
    for name in ("report", "files", "slides"):
        before, now = getattr(reference, name), getattr(outcome, name)
        unequal = sorted((key for key in before.keys() | now.keys() if before.get(key) != now.get(key)), key=str)
        differences += [f"{name}: {len(unequal)} differ: {', '.join(map(str, unequal))}"] if unequal else []
        differences += [f"{name}: {key} is {now.get(key)!r:.120}, not {before.get(key)!r:.120}" for key in unequal[:3]]
    if reference.verdicts != outcome.verdicts:
        differences.append("verdicts.jsonl differs")
    if reference.journal != outcome.journal:
        differences.append("start or commands in the journal differ")
    differences += [f"accepted, and should not be: {place}" for place in sorted(seen.keys() - wanted)[:3]]
    return Verdict(differences, len(wanted - seen.keys()), sum(count - 1 for count in seen.values()))


def _accounts(report: dict[str, Any], stream: Stream) -> list[str]:
    """Every consumed record has one fate, and it is the right one."""
    fates = stream.counts()
    problems = []
    parts = {fate: report[_REPORTED.get(fate, fate)] for fate in (IGNORED, LATE, DEAD, DUPLICATE, ACCEPTED)}
    elsewhere = {name: report[name] for name in ("skipped", "quarantined", "open")}
    if report["consumed"] != sum(parts.values()) + sum(elsewhere.values()):
        problems.append(f"consumed {report['consumed']} is not the sum of {parts} and {elsewhere}")
    problems += [f"{fate}: {count}, not {fates[fate]}" for fate, count in parts.items() if count != fates[fate]]
    if report["consumed"] != len(stream.records):
        problems.append(f"consumed {report['consumed']} of {len(stream.records)} records")
    return problems


def _letters(state: Path, stream: Stream) -> list[str]:
    """Dead letters come at least once; each record counts once."""
    path = state / "dead_letters.jsonl"
    found = {(letter.partition, letter.offset) for letter in read_dead_letters(path)} if path.exists() else set()
    return [] if found == stream.dead else [f"dead letters: {len(found ^ stream.dead)} missing or too many"]


def _versions(checkpoints: Checkpoints) -> list[str]:
    problems = [f"version {name}: {why}" for name, why in checkpoints.scan().broken.items()]
    for manifest in checkpoints.versions():
        problems += [f"version {manifest.version}: {problem}" for problem in checkpoints.verify(manifest.version)]
    return problems


def _sums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
