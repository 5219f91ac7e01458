"""Config files: a config that the stages can be built from, or a ConfigError that begins with the file's name."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from stream_learner import config as configs
from stream_learner.config_text import show
from stream_learner.errors import ConfigError
from stream_learner.ingest.decode import Decoder
from stream_learner.ingest.positions import parse_start

from .cases import Case, Check, refusable
from .records import MAPPINGS

SECRET = "hunter2-of-the-fuzzer"
ENVIRON = {"FUZZ_SECRET": SECRET, "KEY": "0123456789abcdef"}
_TEXTS = (
    "name: shop\nseed: 7\nslides: {slide: 5m, allowed_lateness: 30s, max_ahead: 1h}\ndedupe: {window: null}\n",
    "source:\n  kind: kafka\n  start: 2024-01-01T00:00:00Z\n  kafka:\n    bootstrap_servers: ${FUZZ_SECRET}\n"
    "    options: {sasl_plain_password: '${FUZZ_SECRET}', security_protocol: SASL_SSL, port: 5}\n",
    "topics:\n  a: &a\n    fields: {user: u, item: i, id: id}\n    types: {click: click, buy: purchase}\n"
    "  b:\n    <<: *a\n    time_format: epoch_s\ndedupe: {window: 10m}\n",
    "slides: {by_count: {size: 28572/100, first: 3}}\naggregates:\n  keys: [user, item, user*item]\n"
    "  windows: [1h, 7d]\n  distinct: [{key: user, of: item}]\n  as_of: {purchase: slide_start}\n",
    "learning: {network: mlp, hidden: [8, 4], dropout: 0.1, learning_rate: 1e-3}\nreplay: {capacity: 10, ratio: .5}\n"
    "features:\n  ids: {user: {table: exact, rows: 64, dim: 4}}\n  aggregates: ['item.*', '^user_(1h|1d)$']\n",
    "gate: {calibration: [0.5, 2], margin: 0.02, max_interval: 1d, interval: 1m}\njudging:\n  windows: [1h]\n"
    "  span: {start: '2024-01-01', end: '2024-02-01T00:00:00+01:00'}\ndrift: {bins: 5, aggregates: [x]}\n",
    "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: [*c,*c,*c,*c]\n",
)


def valid() -> list[Case]:
    """Texts in block style, the same in JSON (which is YAML), so that trees are damaged too."""
    loaded = (yaml.safe_load(text) for text in (*_TEXTS[:-1], MAPPINGS))
    trees = [json.dumps(tree, default=str) for tree in loaded]
    return [Case("shop.yaml", text.encode()) for text in (*_TEXTS, MAPPINGS, *trees)]


def open_config(folder: Path) -> Check:
    path = folder / "shop.yaml"

    def check(case: Case) -> None:
        path.write_bytes(case.content)
        check_config(path)

    return check


def check_config(path: Path) -> None:
    try:
        config = configs.load(path, ENVIRON)
    except ConfigError as error:
        assert str(error).startswith(str(path)), error
        assert len(str(error)) < 100_000
        assert SECRET not in str(error), "a secret is shown"
        return
    assert len(configs.model_hash(config)) == 64
    Decoder(config, configs.event_schema(config))
    with refusable("source.start"):
        parse_start(config.source.start)
    assert SECRET not in show(path, ENVIRON), "a secret is shown"
