"""The simulated shop: reproducible, learnable, and drifting as its drifts are named."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from broker import KafkaBroker
from kafka import KafkaConsumer, TopicPartition
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from stream_learner.errors import ConfigError, UnavailableError
from stream_learner.simulate import (
    CANCEL,
    CLICK,
    DRIFT_SIZES,
    PURCHASE,
    Drift,
    Shop,
    ShopEvents,
    ShopSettings,
    add_arguments,
    encode,
    limited,
    main,
    produce_kafka,
    revealed,
    write_jsonl,
)
from stream_learner.simulate.outputs import paced, partition_of
from stream_learner.simulate.world import HOUR_US

SMALL: dict[str, Any] = {"users": 3000, "items": 300, "events_per_hour": 20_000.0}


def _events(hours: float = 6.0, **changes: Any) -> ShopEvents:
    return ShopEvents.concat(list(Shop(ShopSettings(**(SMALL | changes))).chunks(round(hours * HOUR_US))))


@pytest.fixture(scope="module")
def plain() -> ShopEvents:
    return _events()


def _clicks(events: ShopEvents, start_h: float = 0.0, end_h: float = np.inf) -> ShopEvents:
    hours = (events.time - ShopSettings().start) / HOUR_US
    return events.take((events.kind == CLICK) & (hours >= start_h) & (hours < end_h))


def _bought(events: ShopEvents) -> set[tuple[int, int, int]]:
    purchases = events.take(events.kind == PURCHASE)
    return set(zip(purchases.session.tolist(), purchases.user.tolist(), purchases.item.tolist(), strict=True))


def test_the_same_seed_gives_the_same_bytes_and_another_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        shop = Shop(ShopSettings(seed=seed, **SMALL))
        write_jsonl(
            tmp_path / name, limited(shop.chunks(), 3000), partitions=3, seed=seed, truth=tmp_path / f"{name}.t"
        )
    a, b, c = ([(tmp_path / n / f"{p}.jsonl").read_bytes() for p in range(3)] for n in "abc")
    assert a == b
    assert a != c
    assert (tmp_path / "a.t").read_bytes() == (tmp_path / "b.t").read_bytes()


def test_how_much_is_asked_for_changes_nothing(plain: ShopEvents) -> None:
    shorter = ShopEvents.concat(list(limited(Shop(ShopSettings(**SMALL)).chunks(), 5000)))
    assert len(shorter) == 5000
    cut = _events(hours=0.15)
    for part in (shorter, cut):
        head = plain.take(slice(0, len(part)))
        assert encode(part, 0) == encode(head, 0)
    assert cut.arrival.max() < ShopSettings().start + 0.15 * HOUR_US <= plain.arrival[len(cut)]


def test_events_arrive_nearly_in_order(plain: ShopEvents) -> None:
    assert np.all(np.diff(plain.arrival) >= 0)
    lateness = np.maximum.accumulate(plain.time) - plain.time
    assert 0 < lateness.max() <= 2_000_000
    assert np.array_equal(plain.number, np.arange(len(plain)))
    assert np.all(plain.time % 1000 == 0)
    assert plain.time.min() >= ShopSettings().start


def test_rates_and_delays_are_those_of_the_settings(plain: ShopEvents) -> None:
    clicks = _clicks(plain)
    assert 0.8 * 120_000 * 0.6 < len(plain) < 1.2 * 120_000 * 1.4
    assert 0.03 < np.mean(plain.kind == PURCHASE) / np.mean(plain.kind == CLICK) < 0.05
    assert clicks.probability.mean() == pytest.approx(0.04, abs=0.006)
    first = dict(zip(_keys(clicks), clicks.time.tolist(), strict=True))
    bought = plain.take(plain.kind == PURCHASE)
    delays = np.array([t - first.get(k, t) for k, t in zip(_keys(bought), bought.time.tolist(), strict=True)])
    assert np.mean(delays < HOUR_US) > 0.9
    assert np.median(delays) == pytest.approx(480e6, rel=0.25)
    assert len(np.unique(clicks.user)) < len(np.unique(clicks.session)) / 1.5  # users return
    counts = np.sort(np.bincount(clicks.item))[::-1]
    assert counts[:30].sum() > 0.3 * counts.sum()  # a few items draw much of the traffic


def _keys(events: ShopEvents) -> list[tuple[int, int, int]]:
    return list(zip(events.session.tolist(), events.user.tolist(), events.item.tolist(), strict=True))


def test_every_purchase_follows_a_click_of_its_session(plain: ShopEvents) -> None:
    earliest: dict[tuple[int, int, int], int] = {}
    clicks = _clicks(plain)
    for key, moment in zip(_keys(clicks), clicks.time.tolist(), strict=True):
        earliest[key] = min(moment, earliest.get(key, moment))
    purchases = plain.take(plain.kind == PURCHASE)
    assert all(earliest[k] <= t for k, t in zip(_keys(purchases), purchases.time.tolist(), strict=True))
    assert np.all(np.isnan(purchases.probability))


def test_the_truth_is_calibrated_and_learnable(plain: ShopEvents) -> None:
    """A logistic regression on observable features clearly beats the prior and the item rate."""
    clicks = _clicks(plain)
    sold = _bought(plain)
    label = np.array([key in sold for key in _keys(clicks)])
    settled = clicks.time < clicks.time.max() - 2 * HOUR_US
    assert label[settled].mean() == pytest.approx(clicks.probability[settled].mean(), rel=0.12)
    half = np.cumsum(settled) < settled.sum() / 2
    train, test = half & settled, ~half & settled
    one_hot = OneHotEncoder(handle_unknown="ignore")
    ids = np.stack([clicks.item, clicks.category, clicks.source], axis=1)
    relative = np.log(clicks.price)
    features = one_hot.fit(ids[train]).transform(ids).toarray()
    features = np.hstack([features, StandardScaler().fit_transform(relative[:, None])])
    model = LogisticRegression(C=0.3, max_iter=300).fit(features[train], label[train])
    auc = roc_auc_score(label[test], model.predict_proba(features[test])[:, 1])
    sums, counts = (np.bincount(clicks.item[train], weights=w, minlength=10_000) for w in (label[train], None))
    item_rate = (sums + 20 * label[train].mean()) / (counts + 20)
    item_auc = roc_auc_score(label[test], item_rate[clicks.item[test]])
    best = roc_auc_score(label[test], clicks.probability[test])
    assert 0.55 < item_auc < auc - 0.03
    assert auc >= 0.70
    assert 0.76 < best < 0.88


def test_features_of_a_model_with_the_truths_parts_are_enough(plain: ShopEvents) -> None:
    clicks = _clicks(plain)
    drawn = np.random.default_rng(0).random(len(clicks)) < clicks.probability
    assert roc_auc_score(drawn, clicks.probability) >= 0.76


def test_a_rate_drift_changes_how_often_the_same_clicks_sell(plain: ShopEvents) -> None:
    drifted = _events(drift=(Drift.parse("rate@2:1.0"),))
    before, after = _clicks(drifted, 0, 1.9), _clicks(drifted, 2.5)
    old = _clicks(plain, 2.5)
    assert np.array_equal(before.probability, _clicks(plain, 0, 1.9).probability)
    odds = _odds(after.probability).mean() - _odds(old.probability).mean()
    assert odds == pytest.approx(1.0, abs=0.02)
    assert _shares(after.item, 300) == pytest.approx(_shares(old.item, 300), abs=0.01)  # P(x) is what it was


def test_a_preference_drift_changes_who_wants_what_and_not_how_much(plain: ShopEvents) -> None:
    drifted = _clicks(_events(drift=(Drift.parse("preference@2"),)), 2.5)
    old = _clicks(plain, 2.5)
    assert drifted.probability.mean() == pytest.approx(old.probability.mean(), rel=0.2)
    common = np.intersect1d(np.unique(old.item), np.unique(drifted.item))
    means = [_item_odds(events, common) for events in (old, drifted, _clicks(plain, 0.0, 1.9))]
    assert np.corrcoef(means[0], means[2])[0, 1] > 0.8
    assert np.corrcoef(means[0], means[1])[0, 1] < 0.75


def test_a_price_drift_moves_prices_and_sales(plain: ShopEvents) -> None:
    drifted, old = _clicks(_events(drift=(Drift.parse("price@2:0.5"),)), 2.5), _clicks(plain, 2.5)
    assert np.median(drifted.price) == pytest.approx(1.5 * np.median(old.price), rel=0.05)
    assert _odds(drifted.probability).mean() < _odds(old.probability).mean() - 0.3


def test_an_items_drift_brings_new_items(plain: ShopEvents) -> None:
    drifted = _clicks(_events(new_items_per_hour=0.0, drift=(Drift.parse("items@2:0.5"),)), 0)
    assert _clicks(drifted, 0, 1.9).item.max() < 300
    late = _clicks(drifted, 2.5).item
    assert 0.2 < np.mean(late >= 300) < 0.8
    assert len(np.unique(late[late < 300])) <= 150


def test_a_missing_feature_is_missing_in_its_share(plain: ShopEvents) -> None:
    drifted = _events(drift=(Drift.parse("missing_feature@2:0.3"),))
    assert not np.isnan(_clicks(drifted, 0, 1.9).price).any()
    assert np.isnan(_clicks(drifted, 2.5).price).mean() == pytest.approx(0.3, abs=0.02)
    lost = drifted.take(np.isnan(drifted.price)).take(slice(0, 3))
    assert [json.loads(line)["price"] for line in encode(lost, 0)] == [None] * 3


def test_an_outage_loses_its_span_and_nothing_else(plain: ShopEvents) -> None:
    drifted = _events(drift=(Drift.parse("outage@2:1.5"),))
    hours = (drifted.time - ShopSettings().start) / HOUR_US
    assert not ((hours >= 2) & (hours < 3.5)).any()
    hours = (plain.time - ShopSettings().start) / HOUR_US
    kept = plain.take((hours < 2) | (hours >= 3.5))
    assert np.array_equal(drifted.time, kept.time) and np.array_equal(drifted.item, kept.item)


@pytest.mark.parametrize(("kind", "lost"), [("outage_clicks", CLICK), ("outage_purchases", PURCHASE)])
def test_half_an_outage_loses_its_kind_alone(plain: ShopEvents, kind: str, lost: int) -> None:
    drifted = _events(drift=(Drift.parse(f"{kind}@2:1.5"),))
    hours = (plain.time - ShopSettings().start) / HOUR_US
    kept = plain.take((hours < 2) | (hours >= 3.5) | (plain.kind != lost))
    assert len(kept) < len(plain)
    assert np.array_equal(drifted.time, kept.time) and np.array_equal(drifted.kind, kept.kind)


def test_a_season_returns(plain: ShopEvents) -> None:
    drifted = _events(drift=(Drift.parse("season@2:1.5"), Drift.parse("season@2.5:1.0")))
    for start, end, is_back in ((0, 1.9, True), (2.2, 3.4, False), (4.2, 6, True)):
        old, now = _clicks(plain, start, end), _clicks(drifted, start, end)
        assert (len(old) == len(now) and np.allclose(old.probability, now.probability)) == is_back


def test_new_items_appear_over_time() -> None:
    late = _clicks(_events(new_items_per_hour=20.0))
    assert 30 < len(np.unique(late.item[late.item >= 300])) <= 200
    first = [late.time[late.item == item].min() for item in np.unique(late.item[late.item >= 300])]
    assert np.corrcoef(np.arange(len(first)), first)[0, 1] > 0.9


@pytest.mark.parametrize(
    "text", ["", "rate", "rate@", "rate@x", "rate@1:y", "storm@1", "items@1:2", "rate@-1", "rate@inf", "price@1:nan"]
)
def test_a_bad_drift_says_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="drift"):
        Drift.parse(text)


def test_a_drift_as_written() -> None:
    assert Drift.parse("rate@1.5:-0.7") == Drift(5_400_000_000, "rate", -0.7)
    assert all(Drift.parse(f"{kind}@0").size == size for kind, size in DRIFT_SIZES.items())


def test_files_hold_every_event_once_by_user(tmp_path: Path, plain: ShopEvents) -> None:
    head = plain.take(slice(0, 4000))
    counts = write_jsonl(tmp_path / "e", [head.take(slice(0, 100)), head.take(slice(100, None))], partitions=12)
    assert sum(counts.values()) == 8000 and counts["events"] == 4000
    paths = sorted((tmp_path / "e").iterdir())
    assert [p.name for p in paths] == [f"{n:02d}.jsonl" for n in range(12)]
    rows = [[json.loads(line) for line in path.read_bytes().splitlines()] for path in paths]
    users = [{row["user_id"] for row in part} for part in rows]
    assert sum(map(len, users)) == len(set().union(*users))
    numbers = sorted(int(row["event_id"].split("-")[1]) for part in rows for row in part)
    assert numbers == list(range(4000))
    assert all(np.all(np.diff([int(r["event_id"][2:]) for r in part]) > 0) for part in rows)
    assert min(map(len, rows)) > 100
    fields = ["event_id", "user_id", "item_id", "event_type", "timestamp", "category", "price", "source", "session_id"]
    assert list(rows[0][0]) == fields
    assert rows[0][0]["event_type"] == "click" and rows[0][0]["timestamp"] > 1_704_067_200_000 - 1
    assert np.array_equal(partition_of(head, 12), partition_of(head.take(slice(0, None)), 12))


def test_a_used_folder_is_refused(tmp_path: Path, plain: ShopEvents) -> None:
    (tmp_path / "0.jsonl").write_text("")
    with pytest.raises(ConfigError, match="is not empty"):
        write_jsonl(tmp_path, [plain])


def test_the_truth_names_every_click_and_stays_out_of_the_events(tmp_path: Path, plain: ShopEvents) -> None:
    head = plain.take(slice(0, 3000))
    write_jsonl(tmp_path / "e", [head], truth=tmp_path / "truth.jsonl")
    truth = [json.loads(line) for line in (tmp_path / "truth.jsonl").read_bytes().splitlines()]
    clicks = _clicks(head)
    assert [t["event_id"] for t in truth] == [f"0-{n}" for n in clicks.number.tolist()]
    assert [t["probability"] for t in truth] == clicks.probability.tolist()
    assert b"probability" not in (tmp_path / "e" / "0.jsonl").read_bytes()


@pytest.mark.kafka
def test_a_topic_holds_every_event_once_by_user(kafka: KafkaBroker, plain: ShopEvents) -> None:
    head = plain.take(slice(0, 3000))
    topic = f"shop-{uuid4().hex}"
    assert produce_kafka(kafka.bootstrap, topic, [head], partitions=3)["events"] == 3000
    records = _consumed(kafka, topic, 3000)
    wanted = dict(zip(encode(head, 0), partition_of(head, 3).tolist(), strict=True))
    assert {r.value: r.partition for r in records} == wanted
    for record in records:
        event = json.loads(record.value)
        assert (record.timestamp, record.key) == (event["timestamp"], event["user_id"].encode())
    produce_kafka(kafka.bootstrap, topic, [head.take(slice(0, 50))], partitions=3, rate=500.0)
    assert len(_consumed(kafka, topic, 3050)) == 3050
    with pytest.raises(ConfigError, match="has 3 partitions, not 4: say --partitions 3"):
        produce_kafka(kafka.bootstrap, topic, [head], partitions=4)


def test_a_broker_that_is_not_there_is_unavailable(plain: ShopEvents) -> None:
    with pytest.raises(UnavailableError, match="check the broker"):
        produce_kafka("127.0.0.1:1", "shop", [plain])


def test_a_rate_is_kept(plain: ShopEvents) -> None:
    head = plain.take(slice(0, 300))
    begin = time.monotonic()
    pieces = list(paced([head], 1000.0))
    assert 0.2 < time.monotonic() - begin < 2.0
    assert np.array_equal(ShopEvents.concat(pieces).number, head.number)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    common = ["--users", "500", "--items", "50", "--partitions", "2", "--drift", "rate@1:2"]
    events = ["--out", str(tmp_path / "a"), "--events", "2500", "--truth", str(tmp_path / "t"), *common]
    assert main(parser.parse_args(events)) == 0
    assert sum(len(p.read_bytes().splitlines()) for p in (tmp_path / "a").iterdir()) == 2500
    assert "2500 events" in capsys.readouterr().err
    hours = ["--out", str(tmp_path / "b"), "--hours", "0.5", "--events-per-hour", "4000", *common]
    assert main(parser.parse_args(hours)) == 0
    assert 500 < sum(len(p.read_bytes().splitlines()) for p in (tmp_path / "b").iterdir()) < 4000
    for bad in (["--users", "0"], ["--drift", "storm@1"], ["--partitions", "0"], ["--rate", "0"]):
        with pytest.raises(ConfigError):
            main(parser.parse_args(["--out", str(tmp_path / "c"), *bad]))
    assert not (tmp_path / "c").exists()


def test_a_hundred_thousand_events_a_second() -> None:
    begin = time.process_time()
    for chunk in limited(Shop(ShopSettings()).chunks(), 100_000):
        encode(chunk, 0)
    assert time.process_time() - begin < 1.0


def _consumed(kafka: KafkaBroker, topic: str, count: int) -> list[Any]:
    """The records of all three partitions."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    consumer.assign([TopicPartition(topic, index) for index in range(3)])
    records: list[Any] = []
    deadline = time.monotonic() + 20
    while len(records) < count and time.monotonic() < deadline:
        records += [record for batch in consumer.poll(timeout_ms=200).values() for record in batch]
    consumer.close()
    return records


def _odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(probability / (1 - probability))


def _shares(values: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    return np.bincount(values[values < count], minlength=count) / len(values)


def _item_odds(events: ShopEvents, items: NDArray[np.int64]) -> NDArray[np.float64]:
    sums = np.bincount(events.item, weights=_odds(events.probability), minlength=items.max() + 1)
    return (sums / np.maximum(np.bincount(events.item, minlength=items.max() + 1), 1))[items]


# ---- what is to come, and what is taken back ----------------------------------------------------------------


def test_what_is_revealed_is_what_follows() -> None:
    """Against every purchase and cancellation of the same user and item, one by one."""
    settings = ShopSettings(**(SMALL | {"conversion": 0.3, "cancelled": 0.3, "users": 50, "items": 20}))
    horizon = HOUR_US // 4
    plain = list(Shop(settings).chunks(HOUR_US))
    told = list(revealed(iter(plain), horizon, 2_000_000))
    events = ShopEvents.concat([part for part in plain if len(part)])
    shown = ShopEvents.concat(told)
    assert np.array_equal(events.number, shown.number) and np.array_equal(events.time, shown.time)
    assert np.isnan(shown.converts[shown.kind != CLICK]).all()
    order = np.lexsort((events.number, events.time))
    assert np.count_nonzero(events.kind == CANCEL) > 100
    for place, row in enumerate(order[:3000]):
        if events.kind[row] != CLICK:
            continue
        converts = False
        for later in order[place + 1 :]:
            if events.time[later] > events.time[row] + horizon:
                break
            if (events.user[later], events.item[later]) == (events.user[row], events.item[row]):
                converts = {CLICK: converts, PURCHASE: True, CANCEL: False}[int(events.kind[later])]
        assert shown.converts[row] == converts
    lines = encode(shown.take(slice(0, 50)), 0)
    assert {("converts" in json.loads(line)) == (json.loads(line)["event_type"] == "click") for line in lines} == {True}


def test_cancellations_follow_their_purchases_and_change_nothing_else() -> None:
    without, events = _events(2.0), _events(2.0, cancelled=0.2)
    cancels, purchases = events.take(events.kind == CANCEL), events.take(events.kind == PURCHASE)
    first = {}
    for user, item, time_us in zip(
        purchases.user.tolist(), purchases.item.tolist(), purchases.time.tolist(), strict=True
    ):
        first.setdefault((user, item), time_us)
    assert 0.1 < len(cancels) / len(purchases) < 0.3
    for user, item, time_us in zip(cancels.user.tolist(), cancels.item.tolist(), cancels.time.tolist(), strict=True):
        assert first[user, item] < time_us
    assert len(events.take(events.kind == CLICK)) > 0.9 * len(without.take(without.kind == CLICK))
