"""A model card as Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from everloop.core.clock import Instant, to_text
from everloop.govern.card_model import CardGate, CardMonitoring, CardRun, ModelCard
from everloop.govern.markdown import NOT_STATED, block, code, escape, facts, table

MOST_COLUMNS = 200


def render(card: ModelCard) -> str:
    """Return the card; every word that a user wrote is escaped."""
    parts = [
        [f"# {escape(card.name)} {escape(card.version)}"],
        _head(card),
        ["## Intended use", "", escape(card.description)],
        ["## What it takes and gives", "", *_signature(card)],
        ["## Data", "", *_data(card)],
        ["## Training", "", *_run(card.run), *_mapping("Model parameters", card.params)],
        ["## Gate", "", *_gate(card.gate)],
        ["## Approvals and waivers", "", *_consents(card)],
        ["## Releases", "", *_releases(card)],
        ["## In service", "", *_in_service(card.monitoring)],
        ["## Not stated", "", *(f"- {what}: {NOT_STATED}" for what in card.missing)],
        ["## Evidence", "", *_evidence(card)],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _head(card: ModelCard) -> list[str]:
    pairs = [
        ("Version", f"{escape(card.version)} (number {card.number}; {escape(card.bump)})"),
        ("Owner", escape(card.owner)),
        ("Registered", to_text(card.registered_at)),
        ("Aliases", ", ".join(escape(alias) for alias in card.aliases) or "none"),
        ("Format", escape(card.format)),
        ("Artifact", code(card.artifact)),
    ]
    if card.problem is not None:
        pairs.insert(0, ("This record does not verify", escape(card.problem)))
    return facts(pairs)


def _signature(card: ModelCard) -> list[str]:
    signature = card.signature
    fields = [("input", field) for field in signature.inputs[:MOST_COLUMNS]]
    fields.append((f"output ({signature.task})", signature.output))
    return table(
        ["role", "name", "type", "null", "seen from", "to"],
        [
            [
                role,
                escape(field.name),
                field.dtype,
                "yes" if field.nullable else "no",
                _number(field.minimum),
                _number(field.maximum),
            ]
            for role, field in fields
        ],
    )


def _data(card: ModelCard) -> list[str]:
    if not card.data:
        return [NOT_STATED]
    lines = []
    for item in card.data:
        columns = ", ".join(escape(column) for column in item.columns[:MOST_COLUMNS])
        lines += facts(
            [
                (item.role.capitalize(), f"{escape(item.ref)}, {_count(item.rows)} rows"),
                ("Columns", columns or NOT_STATED),
                ("Source", escape(item.source)),
                ("Root", code(item.root)),
            ]
        )
    return lines


def _run(run: CardRun | None) -> list[str]:
    if run is None:
        return [NOT_STATED]
    lines = facts(
        [
            ("Run", f"{code(run.ref)}, {run.status}"),
            ("Time", f"{to_text(run.started_at)} to {_time(run.ended_at)}"),
            ("Code commit", code(run.code_commit)),
            ("Environment", code(run.environment)),
        ]
    )
    return lines + _mapping("Parameters", run.params) + _mapping("Metrics", run.metrics)


def _mapping(title: str, values: dict[str, str]) -> list[str]:
    if not values:
        return []
    rows = [[escape(name), escape(value)] for name, value in sorted(values.items())]
    return ["", f"### {title}", "", *table(["name", "value"], rows)]


def _gate(gate: CardGate | None) -> list[str]:
    if gate is None:
        return [NOT_STATED]
    verdict = "passed" if gate.passed else "refused"
    proof = "signature verified" if gate.verified else f"DOES NOT VERIFY: {escape(gate.problem)}"
    lines = [f"The gate {verdict} this artifact at {to_text(gate.at)} ({proof}).", ""]
    for check in gate.checks:
        sign = "passed" if check.passed else "FAILED"
        lines.append(f"- **{escape(check.name)}** {sign}: {escape(check.summary)}")
    return lines


def _consents(card: ModelCard) -> list[str]:
    return _or_none(
        f"- {consent.kind} by {escape(consent.by)} at {to_text(consent.at)}"
        f"{'' if consent.counts else ' (does not count)'}: {escape(consent.words)}"
        for consent in card.consents
    )


def _releases(card: ModelCard) -> list[str]:
    return _or_none(
        f"- {escape(release.deployment)}: {release.state.replace('_', ' ')} "
        f"({release.strategy.replace('_', ' ')}), {to_text(release.started_at)} to "
        f"{_time(release.ended_at)}. {escape(release.why)}"
        for release in card.releases
    )


def _in_service(monitoring: tuple[CardMonitoring, ...]) -> list[str]:
    lines = []
    for item in monitoring:
        loss = "no labelled block yet"
        if item.mean_loss is not None:
            loss = f"mean loss {item.mean_loss:.4g} in the block that ended {_time(item.losses_at)}"
        until = _time(item.predictions_until)
        lines.append(f"- {escape(item.deployment)}: watched until {until}; {loss}")
        lines += [f"- {escape(item.deployment)}, open alert: {escape(a)}" for a in item.open_alerts]
    return lines or ["It answers no deployment now."]


def _evidence(card: ModelCard) -> list[str]:
    lines = facts(
        [
            ("Record", f"{code(card.ref)}, last written by ledger entry {_count(card.entry)}"),
            ("Card made", to_text(card.made_at)),
        ]
    )
    rows = [[escape(path), code(digest)] for path, digest in card.files.items()]
    lines += ["", *table(["file", "digest"], rows)]
    lines += ["", "Checkpoint of the ledger; keep it, it anchors everything above:", ""]
    return lines + block(card.checkpoint)


def _or_none(lines: Iterable[str]) -> list[str]:
    return list(lines) or ["None."]


def _time(at: Instant | None) -> str:
    return to_text(at) if at else "now"


def _count(value: int | None) -> str:
    return NOT_STATED if value is None else str(value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
