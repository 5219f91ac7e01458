"""Which slices an example belongs to: by a slow count of what came before, and few whatever comes in."""

import numpy as np
import pytest

from stream_learner import config as configs
from stream_learner.errors import ConfigError
from stream_learner.events import EventSchema, ExampleBatch
from stream_learner.ingest.identity import fingerprints
from stream_learner.judging.slices import Slices
from stream_learner.settings import Judging
from tests.windows.streams import same_state

SCHEMA = EventSchema(("t",), ("click", "purchase"), ("user", "item", "session", "source"), ())
JUDGING = Judging(slices=["new_user", "source", "new_item"], slice_values={"source": ["ads"]}, slice_top=3)


def batch(ids, unseen=None):
    n = len(ids)
    nothing = np.full(n, np.nan, np.float32)
    return ExampleBatch(
        time=np.zeros(n, np.int64),
        ids=ids,
        numbers=np.empty((n, 0), np.float32),
        label=nothing,
        logit_candidate=nothing,
        logit_champion=nothing,
        logit_served=nothing,
        baseline=np.full((n, 4), np.nan, np.float32),
        judged=np.ones(n, bool),
        unseen=np.zeros((n, 2), bool) if unseen is None else unseen,
    )


def ids_of(users, items, sources=None):
    sources = [""] * len(users) if sources is None else sources
    return np.stack([np.array(users, np.uint64), np.array(items, np.uint64), np.zeros(len(users), np.uint64),
                     fingerprints(sources)], 1)  # fmt: skip


def test_unseen_is_exactly_what_no_earlier_click_had():
    rng = np.random.default_rng(4)
    slices, met = Slices(JUDGING, SCHEMA), [set(), set()]
    for _ in range(30):
        users, items = rng.integers(0, 400, 50).tolist(), rng.integers(0, 200, 50).tolist()
        expected = []
        for pair in zip(users, items, strict=True):
            expected.append([one != 0 and one not in known for one, known in zip(pair, met, strict=True)])
            for one, known in zip(pair, met, strict=True):
                known.add(one)
        assert slices.arrive(ids_of(users, items)).tolist() == expected


def test_names_and_codes():
    slices = Slices(JUDGING, SCHEMA)
    sources = ["ads"] + ["b"] * 5 + ["c"] * 4 + ["d"] * 3 + [""]
    ids = ids_of(list(range(14)), [7] * 14, sources)
    unseen = slices.arrive(ids)
    found = slices.of(batch(ids, unseen))
    b, c = (f"source=#{key:016x}" for key in fingerprints(["b", "c"]).tolist())
    assert list(found) == JUDGING.slices
    assert found["source"].names == ("source=ads", b, c, "source=other", "source=missing")
    assert found["source"].codes.tolist() == [0] + [1] * 5 + [2] * 4 + [3] * 3 + [4]
    assert [found["new_user"].names[code] for code in found["new_user"].codes] == (
        ["new_user=missing"] + ["new_user=yes"] * 13
    )
    assert [found["new_item"].names[code] for code in found["new_item"].codes] == (
        ["new_item=yes"] + ["new_item=no"] * 13
    )
    assert slices.names() == [name for member in found.values() for name in member.names]


def test_slices_stay_few_and_a_new_season_takes_over():
    slices = Slices(Judging(slices=["source"], slice_top=3), SCHEMA)
    rng = np.random.default_rng(5)
    for _ in range(5):
        slices.arrive(ids_of([1] * 9000, [1] * 9000, [f"long tail {i}" for i in rng.integers(0, 40_000, 9000)]))
        assert len(slices.names()) == 5
    slices.arrive(ids_of([1] * 90, [1] * 90, ["summer"] * 50 + ["autumn"] * 40))
    summer, autumn = (f"source=#{key:016x}" for key in fingerprints(["summer", "autumn"]).tolist())
    assert {summer, autumn} < set(slices.names())


def test_a_place_is_kept_until_a_value_twice_as_frequent_wants_it():
    slices = Slices(Judging(slices=["source"], slice_top=1), SCHEMA)
    first, second = (f"source=#{key:016x}" for key in fingerprints(["a", "b"]).tolist())
    for counts, holder in (((10, 9), first), ((0, 10), first), ((0, 5), second)):
        sources = ["a"] * counts[0] + ["b"] * counts[1]
        slices.arrive(ids_of([1] * len(sources), [1] * len(sources), sources))
        assert slices.names()[0] == holder


def test_beyond_known_max_the_ids_met_longest_ago_are_forgotten():
    slices = Slices(Judging(slices=["new_user"], known_max=1000), SCHEMA)
    users = list(range(1, 1001))
    assert slices.arrive(ids_of(users, users))[:, 0].all()
    assert not slices.arrive(ids_of(users[500:], users[500:]))[:, 0].any()
    assert slices.sizes() == {"new_user": 1000}
    slices.arrive(ids_of([5000], [1]))
    assert slices.sizes()["new_user"] < 1000
    assert not slices.arrive(ids_of(users[500:], users[500:]))[:, 0].any()
    assert slices.arrive(ids_of(users[:50], users[:50]))[:, 0].all()


def test_a_restored_one_goes_on_as_the_original():
    rng = np.random.default_rng(6)

    def slide():
        sources = [f"s{i}" for i in rng.geometric(0.2, 300)]
        return ids_of(rng.integers(0, 900, 300).tolist(), rng.integers(0, 900, 300).tolist(), sources)

    original = Slices(JUDGING, SCHEMA)
    for _ in range(5):
        original.arrive(slide())
    restored = Slices(JUDGING, SCHEMA)
    restored.restore(original.capture())
    for _ in range(5):
        ids = slide()
        assert np.array_equal(original.arrive(ids), restored.arrive(ids))
        assert original.names() == restored.names()
    assert same_state(original.capture(), restored.capture())


@pytest.mark.parametrize(
    ("yaml", "named"),
    [
        ("judging: {slices: [colour]}", "judging.slices"),
        ("judging: {slices: [new_user, new_user]}", "judging.slices"),
        ("judging: {slice_values: {source: [ads]}}", "judging.slice_values.source"),
        ("judging: {slices: [new_item], slice_values: {new_item: [x]}}", "judging.slice_values.new_item"),
    ],
)
def test_what_cannot_be_sliced_is_refused(yaml, named):
    with pytest.raises(ConfigError, match=named):
        configs.parse(yaml)
