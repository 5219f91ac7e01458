"""The generator of the Grafana dashboard, which is a script and no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).parents[2] / "deploy"


def dashboard() -> Any:
    """deploy/grafana/dashboard.py as a module."""
    spec = importlib.util.spec_from_file_location("grafana_dashboard", DEPLOY / "grafana" / "dashboard.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module
