"""The bill of materials of the image, CycloneDX 1.6 as JSON: `python deploy/sbom.py > sbom.json`.

What the worker needs with the image's extras, at the versions and with the hashes of requirements.lock; the edges
between packages are those that the installed ones declare. Equal lock files give equal bytes.
"""

from __future__ import annotations

import json
import re
import tomllib
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
EXTRAS = ("fast", "parquet", "remote")  # of the image, as the Dockerfile has them
IMAGE = {
    "python_version": "3.12",
    "python_full_version": "3.12.0",
    "sys_platform": "linux",
    "platform_machine": "x86_64",
}
_PIN = re.compile(r"^(\S+?)==(\S+?)(?: ; (.*?))? \\\n((?:    --hash=sha256:\w+(?: \\)?\n)+)", re.MULTILINE)


def locked() -> dict[str, tuple[str, list[str]]]:
    """By name the version and the SHA-256 of its files."""
    pins = _PIN.findall((ROOT / "requirements.lock").read_text())
    return {
        canonicalize_name(name.partition("[")[0]): (version, re.findall(r"sha256:(\w+)", hashes))
        for name, version, marker, hashes in pins
        if not marker or Marker(marker).evaluate(IMAGE)
    }


def needed() -> dict[str, set[str]]:
    """Package -> the packages it needs itself, for all that the image installs; "" is the worker."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
    found: dict[str, set[str]] = {"": set()}
    waiting = [("", Requirement(line)) for line in wanted]
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while waiting:
        parent, requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        found[parent].add(name)
        found.setdefault(name, set())
        extras = tuple(sorted({"", *requirement.extras}))
        if (name, extras) not in seen:
            seen.add((name, extras))
            waiting += [(name, child) for child in _children(name, extras)]
    return found


def _children(name: str, extras: tuple[str, ...]) -> list[Requirement]:
    declared = [Requirement(line) for line in metadata.requires(name) or []]
    return [r for r in declared if r.marker is None or any(r.marker.evaluate({**IMAGE, "extra": e}) for e in extras)]


def content() -> dict[str, Any]:
    edges, pins = needed(), locked()
    own = metadata.version("stream-learner")
    names = sorted(name for name in edges if name)
    reference = {name: f"pkg:pypi/{name}@{pins[name][0]}" for name in names} | {"": f"pkg:pypi/stream-learner@{own}"}
    components = [
        {
            "type": "library",
            "bom-ref": reference[name],
            "name": name,
            "version": pins[name][0],
            "purl": reference[name],
            "externalReferences": [
                {
                    "type": "distribution",
                    "url": f"https://pypi.org/project/{name}/{pins[name][0]}/",
                    "hashes": [{"alg": "SHA-256", "content": digest} for digest in pins[name][1]],
                }
            ],
        }
        for name in names
    ]
    told = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": reference[""], "name": "stream-learner", "version": own}
        },
        "components": components,
        "dependencies": [
            {"ref": reference[name], "dependsOn": sorted(reference[child] for child in children)}
            for name, children in sorted(edges.items())
        ],
    }
    return told | {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(told, sort_keys=True))}"}


if __name__ == "__main__":
    print(json.dumps(content(), indent=2, sort_keys=True))
