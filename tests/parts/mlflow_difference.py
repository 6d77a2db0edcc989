"""Does the same at random to two MLflow servers and says where their answers differ.

Runs in a client's environment. Arguments: their address, ours, how many operations, the seed.
Answers are compared after ids have become places in a list. What is known to differ is named by
its rule, which stands in docs/explanation/mlflow.md; anything else is an unexplained difference.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

BEGIN_MS = 1_700_000_000_000
METRICS = ("loss", "auc", "val/f1", "with space", "a.b")
PARAMS = ("depth", "model", "learning rate", "a.b")
TAGS = ("team", "stage", "note.x")
TEXTS = ("xgb", "XGB", "lightgbm", "3", "0.5", "", "100%", "it's", "a_b", "äö")
NUMBERS = (0.0, -1.5, 0.5, 0.9, 1e300, -0.0, 3.0, math.nan, math.inf, -math.inf)
LARGEST = sys.float_info.max
Answer = Any


class Pair:
    """Both servers, what was made on them, and the differences so far."""

    def __init__(self, theirs: str, ours: str, seed: int) -> None:
        self.clients = (MlflowClient(tracking_uri=theirs), MlflowClient(tracking_uri=ours))
        self.random = random.Random(seed)
        # Where runs end without a time or go on, the servers keep different ends: then no filter
        # may ask for them.
        self.ends_differ = bool(seed % 2)
        self.experiments: list[tuple[str, str]] = []
        self.runs: list[tuple[str, str]] = []
        self.names: list[str] = []
        self.points: dict[tuple[int, str, int, int], float] = {}
        self.differences: list[dict[str, Any]] = []
        self.known: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.prefix = f"d{seed}-{random.SystemRandom().randrange(10**6)}"

    def both(self, what: str, act: Callable[[MlflowClient, int], Answer]) -> list[Answer]:
        """Do something on both, compare the answers, and return them."""
        self.done[what.partition(" ")[0]] += 1
        answers = [_attempt(act, client, side) for side, client in enumerate(self.clients)]
        theirs, ours = answers
        if _same(theirs, ours):
            return answers
        rule = _rule(what, theirs, ours)
        if rule:
            self.known[rule] += 1
        else:
            self.differences.append(
                {"what": what, "theirs": repr(theirs)[:1500], "ours": repr(ours)[:1500]}
            )
        return answers


def _attempt(act: Callable[[MlflowClient, int], Answer], client: MlflowClient, side: int) -> Answer:
    try:
        return act(client, side)
    except MlflowException as error:
        return {"error": error.error_code, "message": str(error)[:300]}


def _same(theirs: Answer, ours: Answer) -> bool:
    if (
        isinstance(theirs, dict)
        and isinstance(ours, dict)
        and "error" in theirs
        and "error" in ours
    ):
        return bool(theirs["error"] == ours["error"])
    return bool(json.dumps(theirs, sort_keys=True) == json.dumps(ours, sort_keys=True))


def _rule(what: str, theirs: Answer, ours: Answer) -> str | None:
    """Return the name of the known difference that explains two answers, or None."""
    their_error = isinstance(theirs, dict) and "error" in theirs
    our_error = isinstance(ours, dict) and "error" in ours
    if what.startswith("search") and their_error and not our_error:
        return "superset"
    if what.startswith("rename_experiment") and their_error and our_error:
        return "rename"
    if what.startswith("search") and our_error and _is_unfinished(what):
        return "unfinished filter"
    if their_error or our_error:
        return None
    if json.dumps(_finite(theirs), sort_keys=True) == json.dumps(_finite(ours), sort_keys=True):
        return "exact values"
    if json.dumps(_unended(_finite(theirs)), sort_keys=True) == json.dumps(
        _unended(_finite(ours)), sort_keys=True
    ):
        return "end of a run"
    return None


def _is_unfinished(what: str) -> bool:
    text = what.partition(" order ")[0].strip().rstrip("'\"")
    return text.lower().endswith(" and")


def _finite(answer: Answer) -> Answer:
    """Return an answer with the values that MLflow's store makes of infinities and -0.0."""
    if isinstance(answer, dict):
        return {key: _finite(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [_finite(value) for value in answer]
    clamped = {"inf": repr(LARGEST), "-inf": repr(-LARGEST), "-0.0": "0.0"}
    return clamped.get(answer, answer) if isinstance(answer, str) else answer


def _unended(answer: Answer) -> Answer:
    """Return an answer without the times at which runs ended."""
    if isinstance(answer, dict):
        return {key: _unended(value) for key, value in answer.items() if key != "end"}
    return [_unended(value) for value in answer] if isinstance(answer, list) else answer


def shown_run(pair: Pair, run: Any, side: int) -> Answer:
    """Return a run without what must differ: ids and addresses."""
    places = {ids[side]: place for place, ids in enumerate(pair.experiments)}
    return {
        "name": run.info.run_name,
        "experiment": places.get(run.info.experiment_id),
        "status": run.info.status,
        "start": run.info.start_time,
        "end": run.info.end_time,
        "stage": run.info.lifecycle_stage,
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": {
            metric.key: [repr(metric.value), metric.timestamp, metric.step]
            for metric in run.data._metric_objs
        },
    }


def shown_experiment(found: Any) -> Answer:
    """Return an experiment without ids and times."""
    return {
        "name": found.name,
        "stage": found.lifecycle_stage,
        "tags": {key: value for key, value in found.tags.items() if not key.startswith("mlflow.")},
    }


# --- operations -----------------------------------------------------------------------------------


def create_experiment(pair: Pair) -> None:
    name = f"{pair.prefix}/{pair.random.choice('abcdefgh')} x"
    tags = {pair.random.choice(TAGS): pair.random.choice(TEXTS)}
    made = pair.both(
        f"create_experiment {name}",
        lambda client, side: {"id": client.create_experiment(name, tags=tags)} and "made",
    )
    if made == ["made", "made"]:
        pair.names.append(name)
        ids = [client.get_experiment_by_name(name).experiment_id for client in pair.clients]
        pair.experiments.append((ids[0], ids[1]))


def change_experiment(pair: Pair) -> None:
    ids = pair.random.choice(pair.experiments)
    verb = pair.random.choice(("get", "by_name", "rename", "delete", "restore", "tag", "untag"))
    name = pair.random.choice(pair.names)
    new = f"{pair.prefix}/{pair.random.choice('abcdefghij')} x"
    key, text = pair.random.choice(TAGS), pair.random.choice(TEXTS)

    def act(client: MlflowClient, side: int) -> Answer:
        if verb == "rename":
            client.rename_experiment(ids[side], new)
        elif verb == "delete":
            client.delete_experiment(ids[side])
        elif verb == "restore":
            client.restore_experiment(ids[side])
        elif verb == "tag":
            client.set_experiment_tag(ids[side], key, text)
        elif verb == "untag":
            client.delete_experiment_tag(ids[side], key)
        elif verb == "by_name":
            found = client.get_experiment_by_name(name)
            return found and shown_experiment(found)
        return shown_experiment(client.get_experiment(ids[side]))

    answers = pair.both(f"{verb}_experiment", act)
    if verb == "rename" and "name" in answers[1]:
        pair.names.append(new)


def create_run(pair: Pair) -> None:
    ids = pair.random.choice(pair.experiments)
    start = BEGIN_MS + len(pair.runs) * 1_000 + pair.random.randrange(1_000)
    name = f"run {pair.random.randrange(5)}"
    tags = {pair.random.choice(TAGS): pair.random.choice(TEXTS)}
    made: list[str] = ["", ""]

    def act(client: MlflowClient, side: int) -> Answer:
        run = client.create_run(ids[side], start_time=start, tags=dict(tags), run_name=name)
        made[side] = run.info.run_id
        return shown_run(pair, run, side)

    pair.both("create_run", act)
    if all(made):
        pair.runs.append((made[0], made[1]))


def _point(pair: Pair, place: int) -> Metric:
    """Return a point; of one key, step and time there is one value, so that the last is clear."""
    key = pair.random.choice(METRICS)
    step = pair.random.choice((0, 0, 1, 2, 3, -1, 2**40))
    at = BEGIN_MS + pair.random.choice((0, 1, 5_000, 60_000, pair.random.randrange(10**6)))
    value = pair.random.choice(NUMBERS)
    value = pair.points.setdefault((place, key, step, at), value)
    return Metric(key, value, at, step)


def log(pair: Pair) -> None:
    place = pair.random.randrange(len(pair.runs))
    ids = pair.runs[place]
    verb = pair.random.choice(("metric", "metric", "param", "tag", "untag", "batch", "batch"))
    point = _point(pair, place)
    points = [_point(pair, place) for _ in range(pair.random.randrange(6))]
    param, tag = pair.random.choice(PARAMS), pair.random.choice(TAGS)
    text = pair.random.choice(TEXTS)
    more = {key: pair.random.choice(TEXTS) for key in pair.random.sample(PARAMS, 2)}

    def act(client: MlflowClient, side: int) -> Answer:
        run = ids[side]
        if verb == "metric":
            client.log_metric(run, point.key, point.value, point.timestamp, point.step)
        elif verb == "param":
            client.log_param(run, param, text)
        elif verb == "tag":
            client.set_tag(run, tag, text)
        elif verb == "untag":
            client.delete_tag(run, tag)
        else:
            params = [Param(key, value) for key, value in more.items()] if len(points) > 4 else []
            client.log_batch(run, metrics=points, params=params, tags=[RunTag(tag, text)])
        return shown_run(pair, client.get_run(run), side)

    pair.both(f"log_{verb}", act)


def change_run(pair: Pair) -> None:
    ids = pair.random.choice(pair.runs)
    verb = pair.random.choice(("get", "update", "rename", "end", "delete", "restore"))
    if verb == "update" and not pair.ends_differ:
        verb = "end"
    status = pair.random.choice(("FINISHED", "FAILED", "KILLED"))
    if verb == "update":
        status = pair.random.choice(("RUNNING", status))
    end = BEGIN_MS + pair.random.randrange(10**9)
    name = f"run {pair.random.randrange(5)}"

    def act(client: MlflowClient, side: int) -> Answer:
        run = ids[side]
        if verb == "update":
            client.update_run(run, status=status)
        elif verb == "rename":
            client.update_run(run, name=name)
        elif verb == "end":
            client.set_terminated(run, status=status, end_time=end)
        elif verb == "delete":
            client.delete_run(run)
        elif verb == "restore":
            client.restore_run(run)
        return shown_run(pair, client.get_run(run), side)

    pair.both(f"{verb}_run", act)


def read_history(pair: Pair) -> None:
    ids = pair.random.choice(pair.runs)
    key = pair.random.choice(METRICS)
    pair.both(
        "history",
        lambda client, side: [
            [repr(point.value), point.timestamp, point.step]
            for point in client.get_metric_history(ids[side], key)
        ],
    )


def _quoted(pair: Pair, text: str) -> str:
    if "'" in text:
        return f'"{text}"'
    return pair.random.choice((f"'{text}'", f'"{text}"'))


def _key(pair: Pair, key: str) -> str:
    if key.isidentifier() and pair.random.random() < 0.6:
        return key
    return pair.random.choice((f"`{key}`", f'"{key}"'))


def _test(pair: Pair) -> str:
    choice = pair.random.choice
    kind = choice(("metric", "metric", "param", "tag", "text", "number", "null"))
    if kind == "metric":
        sign = choice(("=", "!=", "<", "<=", ">", ">="))
        entity = choice(("metrics", "metric"))
        return (
            f"{entity}.{_key(pair, choice(METRICS))} {sign} {choice((0.5, 0, -1.5, 3, 1e300, 0.9))}"
        )
    if kind in {"param", "tag"}:
        entity = (
            choice(("params", "param", "parameter")) if kind == "param" else choice(("tags", "tag"))
        )
        key = _key(pair, choice(PARAMS if kind == "param" else TAGS))
        sign = choice(("=", "!=", "LIKE", "ILIKE"))
        text = choice((*TEXTS, "%g%", "X%", "_", "%")) if "LIKE" in sign else choice(TEXTS)
        return f"{entity}.{key} {sign} {_quoted(pair, text)}"
    if kind == "null":
        entity, key = choice((("params", choice(PARAMS)), ("tags", choice(TAGS))))
        return f"{entity}.{_key(pair, key)} IS {choice(('', 'NOT '))}NULL"
    if kind == "number":
        at = BEGIN_MS + pair.random.randrange(100) * 1_000
        times = ("start_time", "attributes.start_time", "attr.end_time", "end_time")
        field = choice(times[:2] if pair.ends_differ else times)
        return f"{field} {choice(('<', '<=', '>', '>=', '!=', '='))} {at}"
    field, text = choice(
        (
            ("status", choice(("FINISHED", "RUNNING", "running", "KILLED", "none"))),
            ("attributes.status", "FAILED"),
            ("run_name", f"run {pair.random.randrange(5)}"),
            ("attributes.`run name`", f"run {pair.random.randrange(5)}"),
            ("attribute.run_name", "RUN%"),
        )
    )
    return f"{field} {choice(('=', '!=', 'LIKE', 'ILIKE'))} '{text}'"


def search_runs(pair: Pair) -> None:
    pair_of = pair.random.sample(pair.experiments, min(2, len(pair.experiments)))
    parts = [_test(pair) for _ in range(pair.random.choice((0, 1, 1, 2, 3)))]
    text = pair.random.choice((" and ", " AND ")).join(parts)
    if pair.random.random() < 0.05:
        text += pair.random.choice((" and", " or metrics.loss > 1", " )", " metrics.x >"))
    orders = (
        *(f"metrics.{_key(pair, key)}" for key in METRICS),
        *(f"params.{_key(pair, key)}" for key in PARAMS),
        *(f"tags.{_key(pair, key)}" for key in TAGS),
        "start_time", "attributes.status", "run_name",
        "run_name" if pair.ends_differ else "attributes.end_time",
    )  # fmt: skip
    order = [
        pair.random.choice(orders) + pair.random.choice(("", " ASC", " DESC"))
        for _ in range(pair.random.choice((0, 1, 1, 2)))
    ]
    view = pair.random.choice((1, 1, 2, 3))
    size = pair.random.choice((3, 100))

    def act(client: MlflowClient, side: int) -> Answer:
        ids = [both[side] for both in pair_of]
        found, token = [], None
        while True:
            page = client.search_runs(ids, text, view, size, order or None, token)
            found += [shown_run(pair, run, side) for run in page]
            token = page.token
            if not token:
                return found

    pair.both(f"search_runs {text!r} order {order} view {view}", act)


def search_experiments(pair: Pair) -> None:
    choice = pair.random.choice
    name = choice(pair.names)
    text = f"name LIKE '{pair.prefix}/%'" + choice(
        (
            "",
            f" AND name != '{name}'",
            f" AND name ILIKE '%{name[-3:].upper()}'",
            f" AND tags.team = {_quoted(pair, choice(TEXTS))}",
            f" AND tags.`note.x` LIKE '%{choice(('x', 'X', '3', ''))}%'",
            " AND tags.stage IS NULL",
        )
    )
    order = choice((["name ASC"], ["name DESC"]))
    view = choice((1, 2, 3))
    pair.both(
        f"search_experiments {text!r} order {order} view {view}",
        lambda client, side: [
            shown_experiment(found) for found in client.search_experiments(view, 100, text, order)
        ],
    )


OPERATIONS = (
    *((create_run,) * 3), *((log,) * 8), *((change_run,) * 3), *((search_runs,) * 4),
    create_experiment, change_experiment, change_experiment, read_history, search_experiments,
)  # fmt: skip


def main() -> None:
    """Do as many operations as asked, and print what came of them."""
    theirs, ours, count, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    pair = Pair(theirs, ours, seed)
    create_experiment(pair)
    create_run(pair)
    for _ in range(count):
        pair.random.choice(OPERATIONS)(pair)
    print(
        json.dumps(
            {
                "differences": pair.differences,
                "known": pair.known,
                "done": pair.done,
                "runs": len(pair.runs),
            }
        )
    )


if __name__ == "__main__":
    main()
