"""The bill of materials holds what the image installs, at the versions of the lock file, and nothing of the tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from dashboards import DEPLOY

sys.path.insert(0, str(DEPLOY))
import sbom


def made() -> str:
    return subprocess.run([sys.executable, DEPLOY / "sbom.py"], capture_output=True, text=True, check=True).stdout


def test_it_holds_what_the_image_installs() -> None:
    text = made()
    bill = json.loads(text)
    versions = {component["name"]: component["version"] for component in bill["components"]}
    assert {"tensorflow", "numpy", "keras", "kafka-python", "crc32c", "pyarrow", "s3fs", "aiohttp"} <= set(versions)
    assert {"pytest", "ruff", "moto", "playwright", "grafana-foundation-sdk"} & set(versions) == set()
    lock = (DEPLOY.parent / "requirements.lock").read_text()
    assert [
        pin for pin in versions.items() if not re.search(rf"^{pin[0]}(\[.*\])?=={re.escape(pin[1])} ", lock, re.M)
    ] == []
    assert all(c["externalReferences"][0]["hashes"] for c in bill["components"])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert text == made()


def test_every_edge_leads_from_and_to_a_component() -> None:
    bill = json.loads(made())
    known = {component["bom-ref"] for component in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    assert {entry["ref"] for entry in bill["dependencies"]} == known
    assert {child for entry in bill["dependencies"] for child in entry["dependsOn"]} <= known


def test_the_extras_are_those_of_the_dockerfile() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert tuple(re.findall(r"--extra (\w+)", dockerfile)) == sbom.EXTRAS
    assert f"FROM python:{sbom.IMAGE['python_version']}-slim" in dockerfile
