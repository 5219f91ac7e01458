"""The config as text for people and editors: with defaults filled in, with comments, as JSON Schema."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from stream_learner import config as configs
from stream_learner.settings import Config, Duration, Secret, Section


def show(path: str | Path, environ: Mapping[str, str] = os.environ) -> str:
    """The file's config with every default filled in, as YAML. What came from the environment shows as asterisks."""
    text = configs.read(path)
    config = configs.parse(text, str(path), environ)
    shown = _masked(configs.to_plain(config), configs.filled(text, str(path), environ))
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=10_000)


def _masked(value: Any, given: Any) -> Any:
    """The config's values, asterisks where the file's came from the environment."""
    if isinstance(given, Secret):
        return str(given)
    if isinstance(value, dict) and isinstance(given, dict):
        return {key: _masked(item, given.get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(given, list):
        return [_masked(*pair) for pair in zip(value, given, strict=True)]
    return value


def annotated_default() -> str:
    """`configs/default.yaml`: every key with its default, meaning and unit."""
    head = (
        "# Every key, its default and its meaning. Keys marked (operational) never reach the model: a change of one\n"
        "# never refuses a snapshot. Durations: 500ms, 30s, 5m, 1h, 7d; a bare number counts seconds.\n"
        "# ${NAME} in any value is taken from the environment and never shown.\n"
    )
    return head + "\n".join(_commented(Config(), 0)) + "\n"


def _commented(section: Section, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for field in msgspec.structs.fields(type(section)):
        value = getattr(section, field.name)
        meta = next(m for m in getattr(field.type, "__metadata__", ()) if m.description)
        operational = " (operational)" if (meta.extra or {}).get("scope") == "operational" else ""
        yield f"{indent}# {meta.description}{operational}"
        if isinstance(value, Section):
            yield f"{indent}{field.encode_name}:"
            yield from _commented(value, depth + 1)
        elif isinstance(value, dict) and any(isinstance(item, Section) for item in value.values()):
            yield f"{indent}{field.encode_name}:"
            yield from _named_sections(value, depth + 1)
        else:
            yield f"{indent}{field.encode_name}: {_flow(value)}"


def _named_sections(sections: Mapping[str, Section], depth: int) -> Iterator[str]:
    """The first entry with comments, the others without: their keys are the same."""
    for number, (name, section) in enumerate(sections.items()):
        yield f"{'  ' * depth}{name}:"
        lines = _commented(section, depth + 1)
        yield from (line for line in lines if number == 0 or not line.lstrip().startswith("#"))


def _flow(value: Any) -> str:
    def plain(item: Any) -> Any:
        if isinstance(item, Duration):
            return str(item)
        if isinstance(item, (list, tuple)):
            return [plain(inner) for inner in item]
        return item

    dumped = yaml.safe_dump(plain(value), default_flow_style=True, sort_keys=False, width=10_000)
    return dumped.removesuffix("\n").removesuffix("\n...").rstrip()


def schema() -> str:
    """JSON Schema (2020-12) of a config file, for editors."""
    document = msgspec.json.schema(Config, schema_hook=_custom)
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    document["title"] = "stream-learner config"
    return json.dumps(document, indent=2)


def _custom(kind: type) -> dict[str, Any]:
    if kind is Duration:
        return {"type": ["string", "number"], "examples": ["500ms", "30s", "5m", "1h", "7d", 60]}
    if kind is Secret:
        return {"type": "string", "examples": ["${ENV_VAR}"]}
    raise NotImplementedError(kind)
