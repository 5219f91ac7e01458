"""The config: right files are read, wrong ones are explained, secrets stay secret, and the hash knows what matters."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import yaml

from stream_learner import config as configs
from stream_learner import config_text
from stream_learner.cli import main
from stream_learner.errors import ConfigError
from stream_learner.settings import Checkpoints, Config, Duration, Secret, Section
from stream_learner.settings.base import revealed

ROOT = Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("configs/*.yaml"), *ROOT.glob("benchmarks/configs/*.yaml")])
HIDDEN = 'hunter2-Grüße "quoted" back\\slash'


# ---- the files that come with the project -------------------------------------------------------------------


def test_default_yaml_is_the_codes_defaults() -> None:
    text = (ROOT / "configs/default.yaml").read_text(encoding="utf-8")
    assert text == config_text.annotated_default()
    assert configs.parse(text) == Config() == configs.parse("")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_config_here_checks_out_and_shows_as_itself(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", str(Secret()))  # what it is shown as
    assert main(["config", "check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: ok\n"
    assert main(["config", "show", str(path)]) == 0
    shown = capsys.readouterr().out
    config = configs.load(path)
    assert configs.parse(shown) == config
    assert configs.model_hash(configs.parse(shown)) == configs.model_hash(config)


def test_show_parses_back_where_every_kind_of_value_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "name: Other-1\nseed: 3\n"
        "slides: {slide: 90s, idle_timeout: 1500ms, by_count: {size: 28572/100, first: 71428}}\n"
        "topics: {2024.x: {fields: {type: null, label: l}, constant_type: click, types: {}, label: {at_least: 0.5}}}\n"
        "labels: {from: field}\ngate: {calibration: [0, 2.5]}\nlearning: {table_learning_rate: 1.0e-5}\n"
        "aggregates: {windows: [], distinct: [{key: user, of: item}], as_of: {click: slide_end}}\n"
        "source: {start: 2024-01-02 03:04:05, kafka: {options: {a: 1, b: 'yes', c: null, d: true, e: 0.5}}}\n"
    )
    config = configs.load(path)
    assert config.source.start == "2024-01-02 03:04:05"
    assert configs.parse(config_text.show(path)) == config


def test_the_schema_knows_every_key() -> None:
    schema = json.loads(config_text.schema())
    assert schema["$schema"].endswith("2020-12/schema")

    def resolved(node: dict[str, Any]) -> dict[str, Any]:
        node = next((n for n in node.get("anyOf", []) if n.get("type") != "null"), node)
        return schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node

    def same(node: dict[str, Any], section: type[Section], where: str) -> None:
        fields = {field.encode_name: field for field in msgspec.structs.fields(section)}
        properties = resolved(node)["properties"]
        assert set(properties) == set(fields), where
        assert resolved(node)["additionalProperties"] is False
        for name, inner in properties.items():
            kind = inner_section(fields[name].type)
            assert inner.get("description") or kind, f"{where}.{name}"
            if kind is not None:
                shape = resolved(inner)
                for wrap in ("additionalProperties", "items"):
                    shape = resolved(shape[wrap]) if isinstance(shape.get(wrap), dict) else shape
                same(shape, kind, f"{where}.{name}")

    same(schema, Config, "")


def inner_section(kind: Any) -> type[Section] | None:
    """The section a type holds, alone, optional, in a list or in a mapping."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return kind
    arguments = [kind.__origin__] if hasattr(kind, "__metadata__") else get_args(kind)
    return next((found for found in map(inner_section, arguments) if found is not None), None)


# ---- wrong files --------------------------------------------------------------------------------------------

BAD = [
    # YAML that cannot be read as a config
    ("a: [1", "not valid YAML"),
    ("- a\n- b", "the top level is list, expected a mapping of sections"),
    ("just text", "the top level is str, expected a mapping of sections"),
    ("seed: 1\nseed: 2", "key 'seed' is given twice, line 2"),
    ("slides:\n  slide: 1m\n  slide: 2m", "key 'slide' is given twice, line 3"),
    ("? [a, b]\n: 1", "a key that is no text, line 1"),
    ("topics: &t {a: *t}", "nested too deep, or an alias that holds itself"),
    ("seed: !!python/object:os.system {}", "not valid YAML: could not determine a constructor"),
    # keys
    ("seeds: 1", "seeds: unknown key; allowed here: name, seed, state, source, topics,"),
    ("slides: {slde: 5m}", "slides.slde: unknown key; allowed here: slide, by_count, allowed_lateness,"),
    ("topics: {shop: {fields: {usr: u}}}", "topics.shop.fields.usr: unknown key; allowed here: user, item,"),
    ("features: {ids: {user: {row: 5}}}", "features.ids.user.row: unknown key; allowed here: table, rows, dim"),
    ("aggregates: {distinct: [{key: user, off: item}]}", "aggregates.distinct[0].off: unknown key; allowed here: key"),
    ("aggregates: {distinct: [{key: user}]}", "missing required field `of`"),
    ("slides: {by_count: {first: 3}}", "missing required field `size`"),
    # types
    ("seed: high", 'seed: "high" is not allowed: expected `int`, got `str`'),
    ("seed: 1.5", "seed: 1.5 is not allowed: expected `int`, got `float`"),
    ("seed: true", "seed: true is not allowed: expected `int`, got `bool`"),
    ("slides: 5m", 'slides: "5m" is not allowed: expected `object`'),
    ("topics: [events]", 'topics: ["events"] is not allowed: expected `object`'),
    ("learning: {hidden: 64}", "learning.hidden: 64 is not allowed: expected `array`"),
    ("learning: {hidden: [64, wide]}", 'learning.hidden[1]: "wide" is not allowed: expected `int`'),
    ("privacy: {key: 5}", "privacy.key: 5 is not allowed: expected a string, best as ${ENV_VAR}"),
    ("gate: {interval: null}", "gate.interval: null is not allowed: expected a duration"),
    ("source: {kafka: {options: {a: [1]}}}", "source.kafka.options.a: [1] is not allowed: expected `"),
    # durations
    ("slides: {slide: 5 minutes}", 'slides.slide: "5 minutes" is not allowed: expected a duration: a number with us'),
    ("slides: {slide: -5}", "slides.slide: -5 is not allowed: expected a duration"),
    ("slides: {max_jump: 9999999d}", 'slides.max_jump: "9999999d" is not allowed: expected a duration of less than'),
    ("slides: {slide: 0s}", "slides.slide: 0s; must be longer than 0"),
    ("labels: {horizon: 0s}", "labels.horizon: 0s; must be longer than 0"),
    ("snapshot: {interval: 0}", "snapshot.interval: 0s; must be longer than 0"),
    ("judging: {windows: [0s]}", "judging.windows: 0s; must be longer than 0"),
    # ranges and choices
    ("seed: -1", "seed: -1 is not allowed: expected `int` >= 0"),
    ("name: 7up", 'name: "7up" is not allowed: expected `str` matching regex'),
    ("name: a/b", 'name: "a/b" is not allowed'),
    ("state: ''", 'state: "" is not allowed: expected `str` of length >= 1'),
    ("topics: {}", "topics: {} is not allowed: expected `object` of length >= 1"),
    ("source: {kind: kafak}", "source.kind: \"kafak\" is not allowed: invalid enum value 'kafak'"),
    ("dead_letters: {max_rate: 1.5}", "dead_letters.max_rate: 1.5 is not allowed: expected `float` <= 1.0"),
    ("learning: {dropout: 1}", "learning.dropout: 1 is not allowed: expected `float` < 1.0"),
    ("learning: {learning_rate: 0}", "learning.learning_rate: 0 is not allowed: expected `float` > 0.0"),
    ("learning: {learning_rate: .nan}", "learning.learning_rate: NaN is not allowed"),
    ("aggregates: {smoothing: .inf}", "aggregates.smoothing: inf; must be a finite number"),
    ("observing: {port: 70000}", "observing.port: 70000 is not allowed: expected `int` <= 65535"),
    ("state: 's3://bucket/state'", "state: s3://bucket/state: a URL, but journal, lease and snapshots need a POSIX"),
    ("checkpoints: {options: {key: a}}", "checkpoints.options: for a URL only, but checkpoints.root is null"),
    (
        "checkpoints: {root: /models, options: {a: 1}}",
        "for a URL only, but checkpoints.root is /models; leave them out",
    ),
    ("checkpoints: {root: 's3://'}", "checkpoints.root: 's3://'; expected a URL such as s3://bucket/folder"),
    ("checkpoints: {root: 'file:///models'}", "'file:///models'; give a folder of this machine as a path"),
    ("checkpoints: {root: 's3://me:pass@bucket/x'}", "checkpoints.root: holds a user or password; give those in"),
    ("checkpoints: {root: 's3://bucket/x?versionId=1'}", "expected a URL without query and wildcards"),
    ("checkpoints: {options: [a]}", 'checkpoints.options: ["a"] is not allowed: expected `object`'),
    ("checkpoints: {keep: 1}", "checkpoints.keep: 1 is not allowed: expected `int` >= 2"),
    ("gate: {calibration: [1]}", "gate.calibration: [1] is not allowed: expected `array` of length 2, got 1"),
    ("features: {ids: {user: {rows: 1}}}", "features.ids.user.rows: 1 is not allowed: expected `int` >= 2"),
    # contradictions
    ("topics: {'a b': {}}", "topics.a b: not a valid topic name; allowed: letters, digits"),
    ("topics: {e: {fields: {type: null}}}", "topics.e: exactly one of fields.type and constant_type"),
    ("topics: {e: {constant_type: click}}", "topics.e: exactly one of fields.type and constant_type"),
    ("topics: {e: {types: {}}}", "topics.e.types: empty, so every record would be ignored"),
    ("topics: {e: {types: {pv: 'page view', buy: purchase}}}", "topics.e.types: 'page view' is not a name"),
    ("topics: {e: {categorical: {user: u}}}", "topics.e: feature name 'user'; allowed: letters, digits, '_', and not"),
    ("topics: {e: {categorical: {x: a}, numeric: {x: b}}}", "topics.e.categorical.x: also a numeric feature"),
    ("topics: {e: {fields: {user: a, item: a.b}}}", "topics.e: field path 'a.b' goes through 'a'"),
    ("labels: {from: field}", "topics.events.fields.label: null, but labels.from is `field`; give its path"),
    ("slides: {by_count: {size: 1/0}}", "slides.by_count.size: '1/0'; expected an integer or a fraction"),
    ("slides: {by_count: {size: many}}", "slides.by_count.size: 'many'; expected an integer or a fraction"),
    ("slides: {by_count: {size: 1/2}}", "slides.by_count.size: 1/2; at least 1"),
    ("aggregates: {keys: [user, basket]}", "aggregates.keys: 'basket'; expected one of item, session, user, or a pair"),
    ("aggregates: {keys: [item, user*item*session]}", "aggregates.keys: 'user*item*session'; expected one of"),
    ("aggregates: {keys: [item, item]}", "aggregates.keys: item is listed more than once"),
    ("aggregates: {windows: [1m]}", "aggregates.windows: 1m is shorter than slides.slide 5m"),
    ("aggregates: {expire_after: 1d}", "aggregates.expire_after: 1d is shorter than the window 7d"),
    ("aggregates: {counts: [view]}", "aggregates.counts: 'view' is no type of any mapping; known: cart, click"),
    ("aggregates: {as_of: {view: event}}", "aggregates.as_of.view: no type of any mapping; known: cart, click"),
    ("aggregates: {keys: [item], shares: [{key: item, of: user}]}", "aggregates.shares: item of user needs item*user"),
    ("aggregates: {ranks: [{key: user, of: item}]}", "aggregates.ranks: needs aggregates.half_lives"),
    ("aggregates: {half_lives: [90d]}", "aggregates.expire_after: 60d is shorter than the half-life 90d"),
    ("aggregates: {half_lives: [0s]}", "aggregates.half_lives: 0s; must be longer than 0"),
    ("slides: {by_count: {size: 5, first: 20, first_size: 1/2}}", "slides.by_count.first_size: 1/2; at least 1"),
    ("learning: {network: mlp, optimizer: ftrl}", "learning.optimizer: ftrl forgets a network's first weights"),
    (
        "learning: {network: 'a:b', ensemble: {members: 2}}",
        "learning.ensemble.members: 2 of 'a:b'; own networks have 1",
    ),
    ("aggregates: {keys: [item], distinct: [{key: item, of: user}]}", "needs item*user in aggregates.keys"),
    ("aggregates: {as_of: {purchase: slide_end}}", "aggregates.as_of.purchase: slide_end shows an example its own"),
    (
        "export: {aggregates: [session]}",
        "export.aggregates: 'session' is not in aggregates.keys (user, item, user*item",
    ),
    ("examples: {of: view}", "examples.of: 'view' is no type of any mapping; known: cart, click"),
    ("labels: {positive: order}", "labels.positive: 'order' is no type of any mapping; known: cart, click"),
    ("labels: {positive: click}", "labels.positive: 'click' is also examples.of; a click cannot be its own purchase"),
    ("features: {ids: {brand: {}}}", "features.ids.brand: no such id; known: item, session, user"),
    ("features: {numeric: {price: {}}}", "features.numeric.price: no numeric feature of any mapping; known: none"),
    ("features: {aggregates: ['(']}", "features.aggregates: '(' is not a regular expression"),
    (
        "features: {ids: {}, hour_of_day: false}\naggregates: {keys: []}\nexport: {aggregates: []}",
        "features: nothing for the model to see",
    ),
    (
        "learning: {network: transformer}",
        "learning.network: 'transformer'; expected logistic, mlp, wide_deep, dcn_v2, deepfm or module",
    ),
    ("gate: {calibration: [1.2, 0.8]}", "gate.calibration: [1.2, 0.8]; expected 0 <= low < high"),
    ("gate: {}", "gate: nothing configured; name gate.mode at least"),
    ("gate:", "gate: nothing configured; name gate.mode at least"),
    ("gate: {mode: margin}", 'gate.mode: "margin" is not allowed'),
    ("gate: {mode: superior, max_ne: null}", "gate.max_ne: null, and so is min_auc: any first version would pass"),
    ("gate: {min_auc: 0.6}\njudging: {windows: []}", "gate.min_auc: 0.6 is taken over the longest of judging.windows"),
    ("gate: {min_interval: 2h, max_interval: 1h}", "gate.max_interval: 1h is not longer than min_interval 2h"),
    ("gate: {evidence_window: 1m}", "gate.evidence_window: 1m is shorter than slides.slide 5m"),
    (
        "gate: {slices: {vip=yes: {max_ne: 1}}}",
        "gate.slices.vip=yes: expected feature=value, the feature one of judging",
    ),
    ("gate: {slices: {new_user=maybe: {max_ne: 1}}}", "gate.slices.new_user=maybe: new_user is yes, no or missing"),
    ("gate: {slices: {new_user=yes: {}}}", "gate.slices.new_user=yes: nothing configured; give max_ne, max_excess"),
    ("gate: {margin: 0}", "gate.margin: 0 is not allowed"),
    ("gate: {min_examples: 5}", "gate.min_positives: 20 is more than min_examples 5"),
    ("judging: {span: {start: yesterday}}", "judging.span.start: 'yesterday' is not an ISO 8601 time"),
    (
        "judging: {span: {start: '2024-02-01T00:30', end: '2024-02-01T01:00+01:00'}}",
        "judging.span: start 2024-02-01T00:30 is not before end 2024-02-01T01:00+01:00",
    ),
    ("source: {start: noon}", "source.start: 'noon'; expected earliest, latest or an ISO 8601 time"),
    ("privacy: {pseudonymise: true}", "privacy.key: needed by privacy.pseudonymise, at least 16 characters"),
    ("privacy: {pseudonymise: true, key: short}", "privacy.key: needed by privacy.pseudonymise, at least 16"),
    ("dead_letters: {kind: kafka}", "dead_letters.kind: kafka needs source.kind kafka; use file"),
    ("dedupe: {window: 5m}", "dedupe.window: 5m, but no topic maps fields.id; name the field or set null"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[text.replace("\n", " ")[:40] for text, _ in BAD])
def test_what_is_wrong_is_said(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert main(["config", "check", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"stream-learner: {path}: ")
    assert message in err


def test_all_contradictions_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("labels: {positive: order}\ndedupe: {window: 5m}\nsource: {start: noon}\n")
    assert main(["config", "check", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "latin").write_bytes(b"name: caf\xe9")
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "latin"):
        assert main(["config", "check", str(path)]) == 2
        assert f"{path}: cannot be read" in capsys.readouterr().err


# ---- durations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "us"),
    [("7us", 7), ("500ms", 500_000), ("1.5s", 1_500_000), (" 5 m ", 300_000_000), ("1h", 3_600_000_000),
     ("7d", 604_800_000_000), (60, 60_000_000), (0.25, 250_000), (0, 0)],
)  # fmt: skip
def test_durations_and_their_text(written: object, us: int) -> None:
    duration = Duration.parse(written)
    assert duration == us
    assert Duration.parse(str(duration)) == duration
    assert duration.seconds == us / 1e6


# ---- secrets ------------------------------------------------------------------------------------------------

SECRETIVE = """
privacy: {pseudonymise: true, key: "${PSEUDONYM_KEY}"}
source:
  kafka:
    bootstrap_servers: "${BROKER}"
    options: {sasl_plain_password: "${PASSWORD}", sasl_plain_username: "x${PASSWORD}y", ssl_cafile: /ca}
"""
ENVIRON = {"PSEUDONYM_KEY": "0123456789abcdef", "PASSWORD": HIDDEN, "BROKER": "kafka.internal:9093"}


def test_values_come_from_the_environment() -> None:
    config = configs.parse(SECRETIVE, environ=ENVIRON)
    assert config.privacy.key is not None
    assert config.privacy.key.reveal() == "0123456789abcdef"
    options = config.source.kafka.options
    assert isinstance(options["sasl_plain_password"], Secret)
    assert options["sasl_plain_password"].reveal() == HIDDEN
    assert isinstance(options["sasl_plain_username"], Secret)
    assert options["sasl_plain_username"].reveal() == f"x{HIDDEN}y"
    assert options["ssl_cafile"] == "/ca"
    assert type(config.source.kafka.bootstrap_servers) is str
    assert config.source.kafka.bootstrap_servers == "kafka.internal:9093"


def test_options_of_an_object_store_keep_their_secrets_however_deep(tmp_path: Path) -> None:
    text = """
checkpoints:
  root: s3://bucket/models
  options: {key: "${ID}", client_kwargs: {proxies: [{url: "http://${PASSWORD}@proxy"}], region_name: eu}}
"""
    environ = {"ID": "id-of-the-key", "PASSWORD": HIDDEN}
    config = configs.parse(text, environ=environ)
    assert revealed(config.checkpoints.options) == {
        "key": "id-of-the-key",
        "client_kwargs": {"proxies": [{"url": f"http://{HIDDEN}@proxy"}], "region_name": "eu"},
    }
    path = tmp_path / "c.yaml"
    path.write_text(text)
    for shown in (config_text.show(path, environ), json.dumps(configs.to_plain(config)), repr(config)):
        assert "id-of-the-key" not in shown and "hunter2" not in shown
    assert "region_name: eu" in config_text.show(path, environ)


def test_secrets_are_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in ENVIRON.items():
        monkeypatch.setenv(name, text)
    path = tmp_path / "c.yaml"
    path.write_text(SECRETIVE)
    config = configs.load(path)
    assert config_text.show(path).count("'********'") == 4
    dumped = json.dumps(configs.to_plain(config))
    for shown in (config_text.show(path), dumped, repr(config), str(config), f"{config}", f"{config.source.kafka}"):
        for secret in ("hunter2", "0123456789abcdef"):
            assert secret not in shown
    assert "kafka.internal" not in config_text.show(path)


def unquoted(text: str) -> str:
    """Without the marks by which a message quotes."""
    return text.replace("\\", "").replace('"', "")


@pytest.mark.parametrize(
    "text",
    [
        "source: {kind: '${PASSWORD}'}",
        "source: {start: '${PASSWORD}'}",
        "source: ['${PASSWORD}']",
        "source: {kafka: {options: {a: ['${PASSWORD}']}}}",
        "source: {kafka: {options: ['a long list of things before it', 'more of them', '${PASSWORD}']}}",
        "seed: '${PASSWORD}'",
        "name: '${PASSWORD}'",
        "slides: {slide: '${PASSWORD}'}",
        "slides: {by_count: {size: '${PASSWORD}'}}",
        "learning: {network: '${PASSWORD}'}",
        "labels: {positive: '${PASSWORD}'}",
        "aggregates: {keys: ['a${PASSWORD}']}",
        "topics: {e: {fields: {user: '${PASSWORD}', item: '${PASSWORD}.b'}}}",
        "privacy: {pseudonymise: true, key: '${SHORT}'}",
    ],
)
def test_messages_never_tell_what_the_environment_held(text: str) -> None:
    environ = {"PASSWORD": HIDDEN, "SHORT": "hunter2"}
    with pytest.raises(ConfigError) as raised:
        configs.parse(text, environ=environ)
    message = str(raised.value)
    assert "hunter2" not in message
    assert "slash" not in unquoted(message)
    assert text.split(":")[0] in message  # the place is told all the same


def test_an_unset_variable_is_named_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("source: {kafka: {options: {password: 'x${STREAM_LEARNER_TEST_UNSET}'}}}")
    assert main(["config", "check", str(path)]) == 2
    expected = "source.kafka.options.password: environment variable STREAM_LEARNER_TEST_UNSET is not set"
    assert expected in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"learning.hidden\[0\]: environment variable NONE is not set"):
        configs.parse("learning: {hidden: ['${NONE}']}", environ={})


# ---- what is made of a config -------------------------------------------------------------------------------


def test_the_schema_of_events_names_each_column_once() -> None:
    config = configs.parse(
        "topics:\n"
        "  clicks: {types: {pv: click}, categorical: {brand: b, shop: s}, numeric: {price: p}}\n"
        "  orders:\n"
        "    {fields: {type: null}, constant_type: purchase, types: {}, categorical: {shop: s}, numeric: {n: n}}\n"
    )
    schema = configs.event_schema(config)
    assert dataclasses.astuple(schema) == (
        ("clicks", "orders"),
        ("click", "purchase"),
        ("user", "item", "session", "brand", "shop"),
        ("price", "n"),
    )


def test_a_command_line_can_move_state_and_source() -> None:
    config = configs.parse(
        "checkpoints: {root: /elsewhere}\nsource: {kind: kafka, start: latest, files: {follow: true}}\n"
        "dead_letters: {kind: kafka}"
    )
    assert configs.with_state(config, None) is config
    moved = configs.with_state(config, "there")
    assert (moved.state, moved.checkpoints.root) == ("there", None)
    remote = configs.parse("checkpoints: {root: 's3://bucket/models', options: {anon: true}}")
    assert configs.with_state(remote, "there").checkpoints == Checkpoints()
    with pytest.raises(ConfigError, match="--state s3://bucket/state: a URL, but state needs a POSIX volume"):
        configs.with_state(config, "s3://bucket/state")
    read = configs.with_files(config, "events.parquet")
    assert (read.source.kind, read.source.start, read.source.files.path) == ("files", "earliest", "events.parquet")
    assert (read.source.files.follow, read.dead_letters.kind) == (False, "file")
    assert configs.model_hash(read) == configs.model_hash(moved) == configs.model_hash(config)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Config().seed = 5  # type: ignore[misc]


def test_keys_and_times_stay_the_text_they_were_written_as() -> None:
    text = "base: &b {x: 1}\nother: {<<: *b, y: 2024-05-06}\n1: {off: 1, 0x10: 2, null: 3}"
    assert configs.filled(text, "c", {}) == {
        "base": {"x": 1},
        "other": {"x": 1, "y": "2024-05-06"},
        "1": {"off": 1, "0x10": 2, "null": 3},
    }
    assert yaml.safe_load("2024-05-06") != "2024-05-06"  # what a plain loader makes of it
