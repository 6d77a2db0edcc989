"""Does the same at random to the registries of two MLflow servers; says where answers differ.

Runs in a client's environment. Arguments: their address, ours, how many operations, the seed.
Numbers of versions become ordinals of what was registered, for ours are never given again and
theirs are; what else is known to differ is named by its rule and counted.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

SOURCES = 60
NAMES = ("alpha", "beta", "Gamma", "delta_1")
ALIASES = ("best", "Old", "x-1")
KEYS = ("team", "k.e.y")
TEXTS = ("a", "A", "it's", "100%", "a_b", "äö", "")
STAGES = ("Staging", "production", "Archived", "None", "nowhere")
MODEL_FILTERS = (
    "", "name = 'P-alpha'", "name LIKE 'P-%'", "name ILIKE '%BETA'", "name != 'P-alpha'",
    "tags.team = 'a'", "tags.team != 'a'", "name LIKE 'P-%' AND tags.team LIKE 'a%'",
    "tags.`k.e.y` ILIKE 'A'", "tag.`mlflow.prompt.is_prompt` != 'true'", "nonsense = 'x'",
    "name >", "name = 3", "name IN ('P-alpha', 'P-beta')",
)  # fmt: skip
VERSION_FILTERS = (
    "name = 'P-alpha'", "name LIKE 'P-%'", "name = 'P-beta' AND tags.team = 'a'",
    "name LIKE 'P-%' AND tags.team != 'a'", "name LIKE 'P-%' AND tags.`k.e.y` ILIKE 'a%'",
    "name = 'P-alpha' AND run_id = 'nobody'", "nonsense = 'x'", "version_number = 'x'",
)  # fmt: skip
Answer = Any


class Pair:
    """Both registries, the places of files that are registered, and the differences so far."""

    def __init__(self, theirs: str, ours: str, seed: int) -> None:
        self.clients = tuple(
            MlflowClient(tracking_uri=uri, registry_uri=uri) for uri in (theirs, ours)
        )
        self.random = random.Random(seed)
        self.prefix = f"d{seed}-{random.SystemRandom().randrange(10**6)}"
        self.sources = _make_sources(ours, self.prefix)
        self.used = 0
        self.ordinals: tuple[dict[tuple[str, str], int], ...] = ({}, {})
        self.versions: list[tuple[str, str, str]] = []
        self.differences: list[dict[str, Any]] = []
        self.known: Counter[str] = Counter()
        self.done: Counter[str] = Counter()

    def name(self) -> str:
        return f"{self.prefix}-{self.random.choice(NAMES)}"

    def both(self, what: str, act: Callable[[MlflowClient, int], Answer]) -> list[Answer]:
        """Do something on both and compare the answers."""
        self.done[what.partition(" ")[0]] += 1
        answers = [_attempt(act, client, side) for side, client in enumerate(self.clients)]
        if not _same(*answers):
            rule = _rule(what, *answers)
            if rule:
                self.known[rule] += 1
            else:
                theirs, ours = (repr(answer)[:800] for answer in answers)
                self.differences.append({"what": what, "theirs": theirs, "ours": ours})
        return answers

    def shown(self, side: int, version: Any) -> Answer:
        """Return a version without what is a server's own."""
        return {
            "name": version.name,
            "ordinal": self.ordinals[side].get((version.name, str(version.version))),
            "stage": version.current_stage,
            "description": version.description or "",
            "tags": dict(version.tags),
            "aliases": sorted(version.aliases),
            "status": version.status,
        }

    def shown_model(self, side: int, model: Any) -> Answer:
        """Return a model without what is a server's own."""
        return {
            "name": model.name,
            "description": model.description or "",
            "tags": dict(model.tags),
            "aliases": {
                alias: self.ordinals[side].get((model.name, str(number)))
                for alias, number in model.aliases.items()
            },
            "latest": sorted(
                (self.shown(side, version) for version in model.latest_versions), key=str
            ),
        }

    def pick(self) -> tuple[str, str, str]:
        """Return a version that was registered once: its model and its numbers."""
        if not self.versions or self.random.random() < 0.1:
            return (self.name(), "999", "999")
        return self.random.choice(self.versions)


def _make_sources(ours: str, prefix: str) -> list[tuple[str, str]]:
    mlflow.set_tracking_uri(ours)
    client = MlflowClient(tracking_uri=ours)
    run = client.create_run(client.create_experiment(prefix)).info.run_id
    with tempfile.TemporaryDirectory() as folder:
        for number in range(SOURCES):
            place = Path(folder, f"m{number}")
            place.mkdir()
            (place / "MLmodel").write_text(f"flavors: {{}}\n# {prefix} {number}\n")
        client.log_artifacts(run, folder)
    return [(f"runs:/{run}/m{number}", run) for number in range(SOURCES)]


def _attempt(act: Callable[[MlflowClient, int], Answer], client: MlflowClient, side: int) -> Answer:
    try:
        return act(client, side)
    except MlflowException as error:
        return {"error": error.error_code, "message": str(error)[:300]}


def _same(theirs: Answer, ours: Answer) -> bool:
    if isinstance(theirs, dict) and isinstance(ours, dict) and "error" in theirs | ours:
        return bool(theirs.get("error") == ours.get("error"))
    return bool(json.dumps(theirs, sort_keys=True) == json.dumps(ours, sort_keys=True))


def _rule(what: str, theirs: Answer, ours: Answer) -> str | None:
    """Return the name of the known difference that explains two answers, or None."""
    their_error = isinstance(theirs, dict) and "error" in theirs
    our_error = isinstance(ours, dict) and "error" in ours
    if what.startswith("search") and their_error and not our_error:
        return "superset"
    if what.startswith("stage") and their_error and theirs["error"] == "INTERNAL_ERROR":
        return "archiving under a stage at rest"
    if their_error or our_error:
        return None
    if json.dumps(_bare(theirs), sort_keys=True) == json.dumps(_bare(ours), sort_keys=True):
        return "aliases in lists"
    return None


def _bare(answer: Answer) -> Answer:
    """Return an answer without the aliases of its versions, which MLflow's lists leave out."""
    if isinstance(answer, dict):
        return {
            key: _bare(value)
            for key, value in answer.items()
            if not (key == "aliases" and isinstance(value, list))
        }
    return [_bare(item) for item in answer] if isinstance(answer, list) else answer


def create_model(pair: Pair) -> None:
    name, text = pair.name(), pair.random.choice(TEXTS)
    pair.both(
        f"create_model {name}",
        lambda client, side: pair.shown_model(
            side, client.create_registered_model(name, tags={"team": text}, description=text)
        ),
    )


def create_version(pair: Pair) -> None:
    if pair.used == len(pair.sources):
        return
    source, run = pair.sources[pair.used]
    ordinal, pair.used = pair.used, pair.used + 1
    name, text = pair.name(), pair.random.choice(TEXTS)

    numbers: list[str] = []

    def act(client: MlflowClient, side: int) -> Answer:
        told = {"run_id": run} if side else {}
        place = source if side else f"s3://b/{ordinal}"
        made = client.create_model_version(name, place, tags={"team": text}, **told)
        numbers.append(str(made.version))
        pair.ordinals[side][name, str(made.version)] = ordinal
        return pair.shown(side, made)

    pair.both(f"create_version {name}", act)
    if len(numbers) == len(pair.clients):
        pair.versions.append((name, numbers[0], numbers[1]))


def change(pair: Pair) -> None:
    name, *numbers = pair.pick()
    key, text, alias = (pair.random.choice(each) for each in (KEYS, TEXTS, ALIASES))
    stage, archive = pair.random.choice(STAGES), pair.random.random() < 0.3
    acts: dict[str, Callable[[MlflowClient, int], Answer]] = {
        "update_model": lambda c, s: pair.shown_model(s, c.update_registered_model(name, text)),
        "tag_model": lambda c, s: c.set_registered_model_tag(name, key, text),
        "untag_model": lambda c, s: c.delete_registered_model_tag(name, key),
        "update_version": lambda c, s: pair.shown(
            s, c.update_model_version(name, numbers[s], text)
        ),
        "tag_version": lambda c, s: c.set_model_version_tag(name, numbers[s], key, text),
        "untag_version": lambda c, s: c.delete_model_version_tag(name, numbers[s], key),
        "set_alias": lambda c, s: c.set_registered_model_alias(name, alias, numbers[s]),
        "delete_alias": lambda c, s: c.delete_registered_model_alias(name, alias),
        "stage": lambda c, s: pair.shown(
            s, c.transition_model_version_stage(name, numbers[s], stage, archive)
        ),
    }
    what = pair.random.choice(sorted(acts))
    pair.both(f"{what} {name} {numbers} {key} {text!r} {alias} {stage} {archive}", acts[what])


def delete(pair: Pair) -> None:
    name, *numbers = pair.pick()
    if pair.random.random() < 0.7:
        pair.both(
            f"delete_version {name} {numbers}",
            lambda c, s: c.delete_model_version(name, numbers[s]),
        )
        gone = [(name, *numbers)]
    else:
        pair.both(f"delete_model {name}", lambda c, s: c.delete_registered_model(name))
        gone = [known for known in pair.versions if known[0] == name]
    # Theirs gives the numbers again: what they mean then is another version.
    pair.versions = [known for known in pair.versions if known not in gone]


def look(pair: Pair) -> None:
    name, *numbers = pair.pick()
    alias = pair.random.choice(ALIASES)
    acts: dict[str, Callable[[MlflowClient, int], Answer]] = {
        "get_model": lambda c, s: pair.shown_model(s, c.get_registered_model(name)),
        "get_version": lambda c, s: pair.shown(s, c.get_model_version(name, numbers[s])),
        "get_alias": lambda c, s: pair.shown(s, c.get_model_version_by_alias(name, alias)),
        "latest": lambda c, s: sorted(
            (pair.shown(s, version) for version in c.get_latest_versions(name)), key=str
        ),
    }
    what = pair.random.choice(sorted(acts))
    pair.both(f"{what} {name} {numbers} {alias}", acts[what])


def search(pair: Pair) -> None:
    if pair.random.random() < 0.5:
        text = pair.random.choice(MODEL_FILTERS).replace("P-", f"{pair.prefix}-")
        order = pair.random.choice(([], ["name DESC"], ["name ASC"]))
        pair.both(
            f"search_models {text} order {order}",
            lambda c, s: [
                pair.shown_model(s, model)
                for model in c.search_registered_models(text, order_by=order or None)
                if model.name.startswith(pair.prefix)
            ],
        )
        return
    text = pair.random.choice(VERSION_FILTERS).replace("P-", f"{pair.prefix}-")
    order = pair.random.choice((["name ASC", "version_number DESC"], ["name DESC"]))
    pair.both(
        f"search_versions {text} order {order}",
        lambda c, s: sorted(
            (pair.shown(s, version) for version in c.search_model_versions(text, order_by=order)),
            key=str,
        ),
    )


ACTS = (
    (create_model, 3), (create_version, 4), (change, 10), (delete, 1), (look, 5), (search, 6),
)  # fmt: skip


def main() -> None:
    """Act at random and print what differed as JSON."""
    theirs, ours, operations, seed = sys.argv[1:]
    pair = Pair(theirs, ours, int(seed))
    kinds, weights = zip(*ACTS, strict=True)
    for _ in range(int(operations)):
        pair.random.choices(kinds, weights)[0](pair)
    print(
        json.dumps({"differences": pair.differences[:20], "known": pair.known, "done": pair.done})
    )


if __name__ == "__main__":
    main()
