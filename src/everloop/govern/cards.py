"""The model card, made from evidence alone: what nobody stated is said to be not stated.

Model cards after Mitchell et al., "Model Cards for Model Reporting" (2019,
https://arxiv.org/abs/1810.03993), with the ledger's digests in the place of good faith.
"""

from __future__ import annotations

from msgspec import Struct

from everloop.core.clock import to_text
from everloop.core.errors import IntegrityError
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.data.model import DatasetVersion
from everloop.govern.card_model import (
    CardData,
    CardGate,
    CardMonitoring,
    CardRelease,
    CardRun,
    ModelCard,
)
from everloop.govern.card_text import render
from everloop.govern.lineage import consents_of
from everloop.govern.model import RefText
from everloop.govern.starting import node_of
from everloop.govern.things import actor_name
from everloop.kernel.ledger.proving import Prover
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.monitor.model import Alert, AlertState, LossPoint, Watch
from everloop.registry.evidence import GateReport, newest_report, verify_report
from everloop.registry.lookup import current_aliases, resolve_model
from everloop.registry.model import Model, ModelVersion
from everloop.release.model import Deployment, Release
from everloop.track.model import MetricSummary, Run


class ShowCard(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for the card of a model version by ref."""

    ref: RefText


class CardView(Struct, frozen=True, kw_only=True):
    """The card as data and as Markdown."""

    card: ModelCard
    markdown: str


@query("card.show", permission="card:read")
def show_card(ask: ShowCard, view: View) -> CardView:
    """Show the model card of a version, made from the records and the ledger.

    Raises:
        NotFound: there is no such version.
        IntegrityError: the ledger entry that wrote the version does not verify.
    """
    version = resolve_model(view, ask.ref)
    card = _card(view, version)
    return CardView(card=card, markdown=render(card))


def _card(view: View, version: ModelVersion) -> ModelCard:
    model = view.get(Model, version.model)
    prover = Prover(view.tx, view.services.signers["ledger"].public_key)
    standing, entry = prover.standing(version)
    run = _run(view, version.run)
    gate = _gate(view, version)
    data = _data(view, version)
    aliases = current_aliases(view, model.id)
    return ModelCard(
        ref=node_of(version),
        name=version.name,
        version=version.version,
        number=version.number,
        artifact=version.artifact,
        description=model.description,
        owner=actor_name(view, version.created_by),
        registered_at=version.created_at,
        bump=f"{version.bump}: {version.bump_reason}",
        aliases=tuple(sorted(name for name, key in aliases.items() if key == version.id)),
        format=version.format,
        signature=version.signature,
        files={file.path: file.digest for file in version.files},
        params=version.params,
        data=data,
        run=run,
        gate=gate,
        consents=tuple(consents_of(view, version)),
        releases=_releases(view, version),
        monitoring=_monitoring(view, version),
        problem=None if standing.name == "PROVEN" else standing.value,
        missing=tuple(_missing(model, data, run, gate)),
        made_at=view.services.clock.now(),
        entry=entry,
        checkpoint=prover.note,
    )


def _missing(
    model: Model, data: tuple[CardData, ...], run: CardRun | None, gate: CardGate | None
) -> list[str]:
    roles = {item.role for item in data}
    present = {
        "the intended use": bool(model.description.strip()),
        "the training data": "training" in roles,
        "the data held out from training": "holdout" in roles,
        "the training run": run is not None,
        "the commit of the code": run is not None and run.code_commit is not None,
        "the environment of the training": run is not None and run.environment is not None,
        "a gate report": gate is not None,
        # Nothing in the records can tell these; a card that is silent about them would flatter.
        "uses that are out of scope": False,
        "known limitations and ethical considerations": False,
        "results by subgroup": False,
    }
    return [what for what, is_there in present.items() if not is_there]


def _data(view: View, version: ModelVersion) -> tuple[CardData, ...]:
    found = []
    for role, key in (("training", version.dataset_version), ("holdout", version.holdout)):
        row = view.find(DatasetVersion, key) if key else None
        if row is None:
            continue
        columns = row.schema.columns if row.schema else ()
        found.append(
            CardData(
                role=role,
                ref=f"{row.name}@{row.number}",
                rows=row.rows,
                root=row.root,
                columns=tuple(f"{column.name} {column.dtype}" for column in columns),
                source=row.source.description,
                committed_at=row.created_at,
            )
        )
    return tuple(found)


def _run(view: View, key: Id | None) -> CardRun | None:
    run = view.find(Run, key) if key else None
    if run is None:
        return None
    metrics = view.select(MetricSummary, *where(run=run.id), order="key")
    return CardRun(
        ref=node_of(run),
        status=run.status.value,
        started_at=run.started_at,
        ended_at=run.ended_at,
        code_commit=run.code_commit,
        environment=run.environment,
        params=run.params,
        metrics={metric.key: metric.last_text for metric in metrics},
    )


def _gate(view: View, version: ModelVersion) -> CardGate | None:
    report: GateReport | None = newest_report(view, version)
    if report is None:
        return None
    problem = None
    try:
        verify_report(view, report, version)
    except IntegrityError as error:
        problem = error.message
    return CardGate(
        ref=node_of(report),
        passed=report.passed,
        verified=problem is None,
        problem=problem,
        checks=report.checks,
        at=report.at,
    )


def _releases(view: View, version: ModelVersion) -> tuple[CardRelease, ...]:
    found = []
    for row in view.select(Release, *where(candidate=version.id)):
        deployment = view.find(Deployment, row.deployment)
        found.append(
            CardRelease(
                ref=node_of(row),
                deployment=deployment.name if deployment else row.deployment,
                state=row.state.value,
                strategy=row.strategy,
                started_at=row.started_at,
                ended_at=row.ended_at,
                why=row.why,
            )
        )
    return tuple(found)


def _monitoring(view: View, version: ModelVersion) -> tuple[CardMonitoring, ...]:
    found = []
    for deployment in view.select(Deployment, *where(model=version.model)):
        if deployment.champion != version.id:
            continue
        mine = where(deployment=deployment.id)
        watch = view.first(Watch, *mine)
        losses = view.select(
            LossPoint,
            *where(deployment=deployment.id, version=version.id),
            order="number",
            descending=True,
            limit=1,
        )
        alerts = [row for row in view.select(Alert, *mine) if row.state is not AlertState.RESOLVED]
        found.append(
            CardMonitoring(
                deployment=deployment.name,
                predictions_until=watch.watermark if watch else None,
                mean_loss=losses[0].mean_loss if losses else None,
                losses_at=losses[0].at if losses else None,
                open_alerts=tuple(f"{to_text(row.at)}: {row.summary}" for row in alerts),
            )
        )
    return tuple(found)
