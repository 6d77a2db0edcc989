"""Asks MLflow's own store random filters and orders, and writes down what it answered.

Runs in a client's environment. Arguments: a folder for its database, how many, and the seed.
"""

from __future__ import annotations

import json
import math
import random
import sys
from typing import Any

from mlflow.entities import Metric, Param, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

BEGIN_MS = 1_767_225_600_000
DAY_MS = 86_400_000
TEXTS = ["0.5", "1", "1.0", "x", "X", "xy", "größe", "a%b", "it's", "train", 'say "x"']
NUMBERS = [0.0, 0.5, 1.0, -2.5, math.nan, math.inf, -math.inf]
AND = [" and ", " AND ", "  AND\n", " And ", "\tand "]
COMPARES = [">", ">=", "=", "!=", "<", "<="]
dice = random.Random(sys.argv[3])
pick = dice.choice


def some(keys: tuple[str, ...], values: list[Any]) -> dict[str, Any]:
    return {key: pick(values) for key in keys if dice.random() < 0.7}


def populate(store: SqlAlchemyStore, experiment: str) -> list[dict[str, Any]]:
    """Make runs; return what is known of each."""
    made = []
    for number in range(14):
        run: dict[str, Any] = {
            "name": f"run{number}",
            "start": BEGIN_MS + number * (DAY_MS if number % 2 else 1_000) + number,
            "end": None,
            "status": pick(["RUNNING", "FINISHED", "FAILED"]),
            "metrics": some(("m", "val m", "a.b"), NUMBERS),
            "params": some(("p", "q-r", "s"), TEXTS),
            "tags": some(("t", "mlflow.x"), TEXTS),
        }
        tags = [RunTag(key, value) for key, value in run["tags"].items()]
        info = store.create_run(experiment, "ann", run["start"], tags, run["name"]).info
        for key, value in run["metrics"].items():
            store.log_metric(info.run_id, Metric(key, value, 1, 0))
        for key, value in run["params"].items():
            store.log_param(info.run_id, Param(key, value))
        if run["status"] != "RUNNING":
            run["end"] = run["start"] + 5_000
            status = RunStatus.from_string(run["status"])
            store.update_run_info(info.run_id, status, run["end"], run["name"])
        made.append(run | {"id": info.run_id})
    return made


def quoted(text: str) -> str:
    return pick([f"'{text}'", f'"{text}"'])


def spelled(key: str) -> str:
    return pick([key, f"`{key}`", f'"{key}"'])


def clause(runs: list[dict[str, Any]]) -> str:
    """Return one comparison, now and then one that MLflow refuses."""
    kind = pick("mptasn")
    if kind == "m":
        key, value = (
            spelled(pick(["m", "val m", "a.b", "none"])),
            pick(
                ["0", "0.5", "-2.5", "1e0", ".5", "1.", "-1e3", "1e308", "+1", "0x1", "abc", "'1'"]
            ),
        )
        return f"{pick(['metric', 'metrics'])}.{key} {pick(COMPARES)} {value}"
    if kind in "pt":
        return _of_texts(is_param=kind == "p")
    entity = pick(["", "attribute.", "attributes.", "attr.", "run.", "`attributes`."])
    if kind == "a":
        times = [run["start"] for run in runs] + [0, 5.5, 10**13, 10**16, -3]
        field = pick(["start_time", "end_time", "created", "Created", "`start_time`"])
        return f"{entity}{field} {pick(COMPARES)} {pick(times)}"
    how = pick(["=", "!=", "LIKE", "ILIKE"])
    if kind == "s":
        word = pick(["FINISHED", "RUNNING", "KILLED", "SCHEDULED", "NEVER", "FIN%", "%ed", "fin%"])
        return f"{entity}{pick(['status', '`status`'])} {how} {quoted(word)}"
    if dice.random() < 0.5:
        ids = ", ".join(quoted(pick(runs)["id"]) for _ in range(dice.randint(1, 3)))
        return f"{entity}run_id {pick(['IN', 'in', 'NOT IN', 'not in'])} ({ids}{pick(['', ','])})"
    field = pick(["run_name", "`run name`", "`Run name`", "user_id", "nothing", "run_id"])
    value = quoted(pick(["run1", "run%", "ann", "RUN1%", "nope"]))
    return f"{entity}{field} {pick([how, '>'])} {value}"


def _of_texts(*, is_param: bool) -> str:
    entities = ["param", "params", "parameter", "parameters"] if is_param else ["tag", "tags"]
    keys = ["p", "q-r", "s", "none"] if is_param else ["t", "mlflow.x", "none", "mlflow.runName"]
    name = f"{pick(entities)}.{spelled(pick(keys))}"
    how = pick(["=", "!=", "LIKE", "like", "ILIKE", "iLike", "IS NULL", "is not null", "IN", ">"])
    if how.upper().endswith("NULL"):
        return f"{name} {how}"
    if how == "IN":
        return f"{name} IN ({quoted('x')}, {quoted('1')})"
    value = pick([*TEXTS, "%", "x%", "%1%", "_", "X_", "%ö%", "r%"])
    return f"{name} {how} {value if dice.random() < 0.05 else quoted(value)}"


def order() -> list[str]:
    """Return up to two keys, now and then one that MLflow refuses."""
    keys = [
        *("metrics.m", "metric.`val m`", "params.p", "param.s", "tags.t", "start_time", "status"),
        *("attributes.end_time", "run_name", 'metrics."a.b"', "`status`", "created"),
    ]
    ways = ["", " ASC", " DESC", " asc", " desc", " down"]
    return [pick(keys) + pick(ways) for _ in range(pick([0, 0, 1, 2]))]


def main() -> None:
    store = SqlAlchemyStore(f"sqlite:///{sys.argv[1]}/theirs.db", f"{sys.argv[1]}/artifacts")
    experiment = store.create_experiment("one")
    runs = populate(store, experiment)
    asked = []
    for _ in range(int(sys.argv[2])):
        text = pick(AND).join(clause(runs) for _ in range(pick([0, 1, 1, 1, 2, 3])))
        keys = order()
        try:
            found = store.search_runs([experiment], text, ViewType.ALL, 100, keys)
            names = [run.info.run_name for run in found]
        except MlflowException:
            names = None
        asked.append({"filter": text, "order": keys, "names": names})
    print(json.dumps({"runs": runs, "asked": asked}))


if __name__ == "__main__":
    main()
