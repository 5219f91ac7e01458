"""The README's tree names every file of the package, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_tree_is_the_package() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.split("## The tree, in reading order")[1].split("```")[1]
    package = tree.split("configs/")[0]
    there = (path for path in (ROOT / "stream_learner").rglob("*.py") if path.parent.name not in ("models", "settings"))
    assert sorted(re.findall(r"\w+\.py", package)) == sorted(p.name for p in there if p.name != "__init__.py")


def test_links_lead_somewhere() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        assert (ROOT / target).exists(), target
