"""The fenced blocks of the README and of docs/."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"\s+#\s.*$")


def text() -> str:
    """The README, then docs/."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return "\n\n".join(path.read_text(encoding="utf-8") for path in paths)


def blocks(language: str) -> list[str]:
    """Their content, in reading order."""
    return [content for kind, content in _BLOCK.findall(text()) if kind == language]


def commands() -> list[str]:
    """The lines of all shell blocks, without comments."""
    lines = [_COMMENT.sub("", line).strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]
