"""The list of metrics, from the code: `python docs/metrics.py > docs/METRICS.md`."""

from __future__ import annotations

from stream_learner.observing.metric_list import documented

HEAD = """# Metrics

Everything `/metrics` exposes, in the order of the path of an event. Written by `python docs/metrics.py`. Labels take
their values from the config, the topics' partitions or closed lists in the code; no user, item or event is ever one.

| metric | type | labels | what it is |
|---|---|---|---|
"""


def table() -> str:
    lines = [f"| `{m.name}` | {m.type} | {', '.join(m.labels)} | {m.help} |\n" for m in documented()]
    return HEAD + "".join(lines)


if __name__ == "__main__":
    print(table(), end="")
