"""The worker's config for the stream, whole, bare, and with each stage off."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from benchmarks.throughput.stream import HORIZON_S, SLIDE_S

_NEVER = "3650d"


def full(bootstrap: str, topic: str, client: str) -> dict[str, Any]:
    """The defaults, with the network that the peers have too, four kinds of keys, and a version every slide."""
    return {
        "source": {
            "kind": "kafka",
            "kafka": {"bootstrap_servers": bootstrap, "group_id": topic, "client": client},
        },
        "topics": {
            topic: {
                "fields": {"user": "user", "item": "item", "time": "time", "type": "type"},
                "time_format": "epoch_ms",
                "types": {"click": "click", "cart": "cart", "purchase": "purchase"},
                "categorical": {"category": "category"},
                "numeric": {"price": "price"},
            }
        },
        "slides": {"slide": f"{SLIDE_S}s", "allowed_lateness": "10s"},
        "aggregates": {"keys": ["user", "item", "category", "user*item"], "ever": False},
        "labels": {"horizon": f"{HORIZON_S}s"},
        "features": {
            "ids": {
                "user": {"table": "hashed", "rows": 1_000_000, "dim": 16},
                "item": {"table": "hashed", "rows": 300_000, "dim": 16},
            }
        },
        "learning": {"hidden": [128, 64], "batch_size": 4096},
        "gate": {
            "mode": "always",
            "interval": f"{SLIDE_S}s",
            "min_interval": "0s",
            "min_examples": 1,
            "min_positives": 1,
            "max_ne": None,
            "calibration": None,
            "max_psi": None,
        },
        "export": {"aggregates": ["item", "category"]},
        "observing": {"port": 0, "log_format": "json", "log_level": "warning"},
    }


_OFF: dict[str, dict[str, Any]] = {
    "aggregates": {
        "aggregates": {"keys": []},
        "export": {"aggregates": []},
    },
    "replay": {"replay": {"capacity": 0, "ratio": 0}},
    "second_model": {"gate": {"mode": "non_inferior", "max_ne": 1.0, "min_examples": 10**12}},
    "canary": {"canary": {"duration": None}},
    "drift": {"drift": {"interval": _NEVER}},
    "quarantine": {"quarantine": {"enabled": False}},
    "slices": {"judging": {"slices": []}},
    "snapshots": {"snapshot": {"interval": _NEVER}},
}
BARE = ("aggregates", "replay", "second_model")


def variants(bootstrap: str, topic: str, client: str) -> dict[str, dict[str, Any]]:
    """Name -> config: `full`, `bare`, and `no_<stage>` for every stage that can be off."""
    whole = full(bootstrap, topic, client)
    found = {"full": whole, "bare": _without(whole, *BARE)}
    return found | {f"no_{stage}": _without(whole, stage) for stage in _OFF}


def _without(config: dict[str, Any], *stages: str) -> dict[str, Any]:
    out = copy.deepcopy(config)
    for stage in stages:
        for section, values in _OFF[stage].items():
            out[section] = out.get(section, {}) | values
    return out


def with_state(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    return config | {"state": str(folder / "state")}
