"""What a model card holds."""

from __future__ import annotations

from msgspec import Struct

from everloop.core.clock import Instant
from everloop.govern.model import Consent
from everloop.registry.evidence import CheckResult
from everloop.registry.signature import Signature


class CardData(Struct, frozen=True, kw_only=True):
    """One dataset version behind the model, and what it was for."""

    role: str
    ref: str
    rows: int | None
    root: str
    columns: tuple[str, ...]
    source: str
    committed_at: Instant


class CardRun(Struct, frozen=True, kw_only=True):
    """The training run."""

    ref: str
    status: str
    started_at: Instant
    ended_at: Instant | None
    code_commit: str | None
    environment: str | None
    params: dict[str, str]
    metrics: dict[str, str]


class CardGate(Struct, frozen=True, kw_only=True):
    """The newest gate report and whether its signature holds."""

    ref: str
    passed: bool
    verified: bool
    problem: str | None
    checks: tuple[CheckResult, ...]
    at: Instant


class CardRelease(Struct, frozen=True, kw_only=True):
    """One release of the version."""

    ref: str
    deployment: str
    state: str
    strategy: str
    started_at: Instant
    ended_at: Instant | None
    why: str


class CardMonitoring(Struct, frozen=True, kw_only=True):
    """How the version does where it answers now."""

    deployment: str
    predictions_until: Instant | None
    mean_loss: float | None
    losses_at: Instant | None
    open_alerts: tuple[str, ...]


class ModelCard(Struct, frozen=True, kw_only=True):
    """Everything that the records say of one model version.

    Attributes:
        description: What it is for, as the owner stated; empty when nobody did.
        problem: Why the version's own record does not verify; None when it does.
        missing: What a reader should expect of a card and nobody stated or recorded.
        checkpoint: The signed head of the ledger when the card was made: an anchor for the reader.
    """

    ref: str
    name: str
    version: str
    number: int
    artifact: str
    description: str
    owner: str
    registered_at: Instant
    bump: str
    aliases: tuple[str, ...]
    format: str
    signature: Signature
    files: dict[str, str]
    params: dict[str, str]
    data: tuple[CardData, ...]
    run: CardRun | None
    gate: CardGate | None
    consents: tuple[Consent, ...]
    releases: tuple[CardRelease, ...]
    monitoring: tuple[CardMonitoring, ...]
    problem: str | None
    missing: tuple[str, ...]
    made_at: Instant
    entry: int | None
    checkpoint: str
