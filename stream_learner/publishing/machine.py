"""What, beside log, journal, config and seed, the bits of a model depend on: recorded in every manifest."""

from __future__ import annotations

import platform
import re
from importlib.metadata import version
from pathlib import Path

_LIBRARIES = ("tensorflow", "keras", "numpy", "msgspec")
_COMPUTING = re.compile(r"sse|avx|fma|amx|f16c|neon|asimd|sve")


def libraries() -> dict[str, str]:
    """Versions of the interpreter and of the libraries that compute."""
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


def cpu_features() -> list[str]:
    """The processor's architecture and the vector extensions that choose between kernels, sorted."""
    features = {platform.machine()}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
        features |= {flag for flag in flags.partition(":")[2].split() if _COMPUTING.search(flag)}
    return sorted(features)
