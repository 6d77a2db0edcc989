"""The counts as Prometheus reads them: the text format, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/. Times are in seconds, as its naming
rules ask; labels are bounded in number (`tally.MOST_SERIES`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from types import MappingProxyType
from typing import Final

from everloop.serve.observe.tally import BUCKETS_S, Spread, Tally

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
Labels = Iterable[tuple[str, str]]

GAUGES: Final = {
    "requests_in_flight": "Requests that wait for an answer now.",
    "connections": "Open connections.",
    "shadow_rows_awaited": "Rows that shadows have not answered yet.",
    "rows_waiting": "Rows that wait for a model that is busy.",
    "models_resident": "Model versions in memory.",
    "bundles_refused": "Bundles that did not verify.",
    "log_fsync_errors": "How often the log could not be brought onto the disk.",
    "workers": "Processes that answer.",
    "process_resident_memory_bytes": "Memory of the workers, shared pages counted for each.",
    "process_cpu_seconds": "Processor time of the workers since their start.",
}


Drifts = Mapping[tuple[str, str], Mapping[str, float]]
Refused = Mapping[tuple[str, str], int]
MOST_INPUTS: Final = 100


def expose(
    tally: Tally, drifts: Drifts = MappingProxyType({}), refused: Refused = MappingProxyType({})
) -> bytes:
    """Return all counts as text.

    Args:
        tally: The counts.
        drifts: The population stability index of inputs, by deployment and version.
        refused: Labels that judge nothing, by deployment and reason.
    """
    lines = (*_lines(tally), *_refused_lines(refused), *_drift_lines(drifts))
    return "".join(f"{line}\n" for line in lines).encode()


def _refused_lines(refused: Refused) -> Iterator[str]:
    if refused:
        yield from _head("labels_refused_total", "counter", "Labels that judge nothing, by reason.")
    for (deployment, reason), count in sorted(refused.items()):
        yield _line("labels_refused_total", (("deployment", deployment), ("reason", reason)), count)


def _drift_lines(drifts: Drifts) -> Iterator[str]:
    if not drifts:
        return
    told = "Population stability index of an input against the training data, fading by the hour."
    yield from _head("input_drift_psi", "gauge", told)
    for (deployment, version), inputs in sorted(drifts.items()):
        furthest = sorted(inputs.items(), key=lambda item: -item[1])[:MOST_INPUTS]
        for name, index in sorted(furthest):
            labels = (("deployment", deployment), ("version", version), ("input", name))
            yield _line("input_drift_psi", labels, round(index, 6))


def _lines(tally: Tally) -> Iterator[str]:
    series = sorted(tally.answers.items())
    yield from _head("predictions_total", "counter", "Answered rows by status.")
    for key, found in series:
        for status, count in sorted(found.rows.items()):
            yield _line("predictions_total", (*_named(key), ("status", status)), count)
    yield from _head("fallbacks_total", "counter", "Rows that the champion answered instead.")
    for key, found in series:
        yield _line("fallbacks_total", _named(key), found.fallbacks)
    yield from _head("unlogged_total", "counter", "Answered rows that the log had no room for.")
    for key, found in series:
        yield _line("unlogged_total", _named(key), found.unlogged)
    yield from _head("scoring_seconds", "histogram", "Time of a call of the model.")
    for key, found in series:
        yield from _spread("scoring_seconds", _named(key), found.scoring)
    yield from _head("http_replies_total", "counter", "HTTP replies by status.")
    for status_code, count in sorted(tally.replies.items()):
        yield _line("http_replies_total", (("code", str(status_code)),), count)
    yield from _head(
        "request_seconds", "histogram", "Time from a request's first byte to its reply."
    )
    yield from _spread("request_seconds", (), tally.requests)
    for name, told in GAUGES.items():
        if name in tally.gauges:
            yield from _head(name, "gauge", told)
            yield _line(name, (), tally.gauges[name])


def _named(key: tuple[str, str, str]) -> tuple[tuple[str, str], ...]:
    deployment, version, arm = key
    return (("deployment", deployment), ("version", version), ("arm", arm))


def _head(name: str, kind: str, told: str) -> Iterator[str]:
    yield f"# HELP everloop_{name} {told}"
    yield f"# TYPE everloop_{name} {kind}"


def _line(name: str, labels: Labels, value: float) -> str:
    inner = ",".join(f'{label}="{text.translate(_ESCAPES)}"' for label, text in labels)
    return f"everloop_{name}{{{inner}}} {value}" if inner else f"everloop_{name} {value}"


def _spread(name: str, labels: tuple[tuple[str, str], ...], spread: Spread) -> Iterator[str]:
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    totals = list(accumulate(spread.counts))
    for bound, total in zip(bounds, totals, strict=True):
        yield _line(f"{name}_bucket", (*labels, ("le", bound)), total)
    yield _line(f"{name}_sum", labels, spread.sum_us / 1e6)
    yield _line(f"{name}_count", labels, totals[-1])
