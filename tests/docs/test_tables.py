"""What the docs say of exit codes, metrics and config keys is what the code has."""

from __future__ import annotations

import re
import subprocess
import sys

from readme import ROOT, text

from stream_learner import config as configs
from stream_learner.errors import FatalError
from stream_learner.observing.metric_list import documented
from stream_learner.running import EXIT_SHUTDOWN_TIMEOUT
from stream_learner.settings import Config


def section(heading: str) -> str:
    return text().split(f"| {heading} |")[1].split("\n\n")[0]


def test_the_exit_codes_are_the_codes() -> None:
    told = [int(code) for code in re.findall(r"^\| (\d+) \|", section("exit code"), re.MULTILINE)]
    codes = {error.exit_code for error in FatalError.__subclasses__()}
    assert told == sorted({0, *codes, EXIT_SHUTDOWN_TIMEOUT})


def test_the_list_of_metrics_is_as_generated() -> None:
    made = subprocess.run([sys.executable, ROOT / "docs" / "metrics.py"], capture_output=True, text=True, check=True)
    assert (ROOT / "docs" / "METRICS.md").read_text() == made.stdout, "python docs/metrics.py > docs/METRICS.md"
    assert all(f"`{entry.name}`" in made.stdout for entry in documented())


def test_every_key_named_in_the_readme_is_one() -> None:
    keys = set(configs.leaves(configs.to_plain(Config())))
    sections = {key.split(".")[0] for key in keys}
    named = re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", text())
    files = ("yaml", "json", "jsonl", "py", "md", "pb", "html")
    wrong = {
        name
        for name in named
        if name.split(".")[0] in sections
        and not name.endswith(files)
        and not any(key == name or key.startswith(f"{name}.") for key in keys)
    }
    assert wrong == set()


def test_every_metric_named_in_docs_and_rules_is_one() -> None:
    known = {entry.name for entry in documented()}
    for path in (ROOT / "README.md", *(ROOT / "deploy").rglob("*.md"), *(ROOT / "deploy").rglob("rules*.yaml")):
        for name in re.findall(r"(?<![:\w])stream_learner_[a-z_]+\b", path.read_text()):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            assert base in known or name in known, (path, name)
