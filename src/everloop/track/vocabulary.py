"""What the names of a filter mean for runs and experiments."""

from __future__ import annotations

from collections.abc import Mapping

from everloop.core.filter.fields import ChoiceField, InstantField, TextField
from everloop.core.filter.joins import Hop, Route, Through, Union
from everloop.core.filter.keyed import LookedTexts, Numbers, Texts
from everloop.core.filter.scene import Scene
from everloop.core.filter.tree import Text
from everloop.core.filter.vocabulary import Linked, Vocabulary, declare
from everloop.core.ports import Compare
from everloop.core.search import Any, Filter, Link, Order, Test
from everloop.track.fields import PARAM, TAG
from everloop.track.model import HEAD_CHARS, Experiment, RunStatus


def _texts(space: str, help: str) -> Texts:
    hop = Hop("run_field", Link("run"), (Test("space", Compare.EQ, space),))
    return Texts(hop, help, head_size=HEAD_CHARS)


def _tags_of_experiments(scene: Scene) -> Mapping[str, Mapping[str, str]]:
    return {row.id: row.tags for row in scene.reader.select(Experiment) if row.tags}


def _refer_run(scene: Scene, value: Text) -> Filter:
    del scene
    key = value.value.removeprefix("run:")
    return Any((Test("id", Compare.EQ, key), Test("name", Compare.EQ, key)))


def _refer_experiment(scene: Scene, value: Text) -> Filter:
    del scene
    key = value.value.removeprefix("experiment:")
    return Any((Test("id", Compare.EQ, key), Test("name", Compare.EQ, key)))


_TAGS = _texts(TAG, "a tag")
_READ = Route(
    (
        Hop("edge", Link("source", prefix="run:"), (Test("relation", Compare.EQ, "read"),)),
        Hop("dataset_version", Link("id", "target", strip="dataset_version:")),
    )
)
_TOLD = Route((Hop("run_input", Link("run")),))


def _read(field: TextField) -> Through:
    """Return a field of the versions of our datasets that a run read."""
    return Through((_READ,), field)


def _told(column: str) -> Through:
    """Return a field of the data that a run says it read, which need not be ours."""
    return Through(
        (_TOLD,), TextField(column, f"its {column} as its client told it", nullable=True)
    )


MODEL = Hop("model_version", Link("run"))
RUNS = declare(
    Vocabulary(
        noun="run",
        kind="run",
        fields={
            "id": TextField("id", "its id"),
            "name": TextField("name", "its name"),
            "status": ChoiceField("status", "how it stands", tuple(RunStatus), also=("scheduled",)),
            "started_at": InstantField("started_at", "when it began"),
            "ended_at": InstantField("ended_at", "when it ended"),
            "experiment_id": TextField("experiment", "the id of its experiment"),
            "parent": TextField("parent", "the id of the run around it", nullable=True),
            "pipeline": TextField("pipeline", "the pipeline that it executes", nullable=True),
            "created_by": TextField("created_by", "the id of the actor who began it"),
            "user_id": _TAGS.target("mlflow.user"),
            "commit": TextField("code_commit", "the Git commit of its code", nullable=True),
            "error": TextField("error", "why it failed", nullable=True),
            "deleted_at": InstantField("deleted_at", "when it went to the trash"),
        },
        synonyms={
            "run_id": "id",
            "run_name": "name",
            "run name": "name",
            "Run name": "name",
            "Run Name": "name",
            "start_time": "started_at",
            "started": "started_at",
            "created": "started_at",
            "Created": "started_at",
            "end_time": "ended_at",
            "ended": "ended_at",
            "metric": "metrics",
            "param": "params",
            "parameter": "params",
            "parameters": "params",
            "tag": "tags",
            "datasets": "dataset",
        },
        spaces={
            "metrics": Numbers(Hop("metric_summary", Link("run")), "the last value of a metric"),
            "params": _texts(PARAM, "a parameter"),
            "tags": _TAGS,
        },
        links={
            "experiment": Linked(
                "experiment",
                (Route((Hop("experiment", Link("id", "experiment")),)),),
                "its experiment",
                is_single=True,
            ),
            "dataset": Linked(
                "dataset",
                (_READ,),
                "a dataset version that it read",
                fields={
                    "name": Union((_read(TextField("name", "its name")), _told("name"))),
                    "digest": Union((_read(TextField("root", "its digest")), _told("digest"))),
                    "context": _told("context"),
                },
            ),
            "model": Linked("version", (Route((MODEL,)),), "a model version that it made"),
            "deployment": Linked(
                "deployment",
                (Route((MODEL, Hop("deployment", Link("champion")))),),
                "a deployment that its model version answers in",
            ),
            "parent": Linked(
                "run",
                (Route((Hop("run", Link("id", "parent")),)),),
                "the run around it",
                is_single=True,
            ),
        },
        selves=frozenset({"attribute", "attributes", "attr", "run"}),
        refer=_refer_run,
        order=(Order("started_at", descending=True), Order("id")),
    )
)

EXPERIMENTS = declare(
    Vocabulary(
        noun="experiment",
        kind="experiment",
        fields={
            "id": TextField("id", "its id"),
            "name": TextField("name", "its name"),
            "created_at": InstantField("created_at", "when it was made"),
            "created_by": TextField("created_by", "the id of the actor who made it"),
            "deleted_at": InstantField("deleted_at", "when it went to the trash"),
        },
        synonyms={
            "experiment_id": "id",
            "creation_time": "created_at",
            "last_update_time": "created_at",
            "tag": "tags",
            "runs": "run",
        },
        spaces={"tags": LookedTexts(_tags_of_experiments, "a tag")},
        links={
            "run": Linked(
                "run", (Route((Hop("run", Link("experiment")),)),), "a run that belongs to it"
            )
        },
        refer=_refer_experiment,
        order=(Order("created_at", descending=True), Order("id")),
    )
)
