"""What a project may set about releases, and the limits within which the loop may release alone."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Meta, Struct

from everloop.core.clock import Instant

Share = Annotated[float, Meta(gt=0, lt=1)]
Weight = Annotated[float, Meta(ge=0, le=1_000)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Strategy = Literal["all_at_once", "blue_green", "shadow", "canary", "ab", "bandit"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
OnNotProven = Literal["roll_back", "promote", "hold"]
Proof = Literal["error", "invalid", "latency", "label_loss", "range", "override"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Tier = Literal["low", "limited", "high"]
Bump = Literal["patch", "minor", "major"]
BUMPS: tuple[str, ...] = get_args(Bump)
_WEEK: tuple[Weekday, ...] = get_args(Weekday)
_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d|24:00")
USUAL_WEIGHTS = {
    "error": 3.0,
    "invalid": 1.0,
    "latency": 1.0,
    "label_loss": 3.0,
    "range": 1.0,
    "override": 1.0,
}
"""How the evidence is shared among the guardrails: what nobody doubts to be bad weighs most."""

USUAL_APPROVALS: dict[Tier, int] = {"low": 0, "limited": 1, "high": 2}


class FreezeWindow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A time in which no release begins, steps up or is promoted; rolling back is always allowed.

    It lies between two instants, or comes again on days of the week, or both.

    Attributes:
        why: What people are told.
        start: Instant from which it holds; None for ever since.
        end: Instant until which it holds; None for ever.
        days: Days of the week on which it holds; all when empty.
        begin: Time of day from which it holds, ``HH:MM``.
        until: Time of day until which it holds, ``HH:MM`` up to ``24:00``.
        zone: Time zone of days and times, as in the IANA list.
    """

    why: Annotated[str, Meta(max_length=200)] = "frozen"
    start: Instant | None = None
    end: Instant | None = None
    days: tuple[Weekday, ...] = ()
    begin: str = "00:00"
    until: str = "24:00"
    zone: Annotated[str, Meta(max_length=60)] = "UTC"

    def __post_init__(self) -> None:
        """Refuse what has no meaning.

        Raises:
            ValueError: a time of day or a zone that does not exist, or an empty window.
        """
        if not (_TIME.fullmatch(self.begin) and _TIME.fullmatch(self.until)):
            message = f"{self.begin} and {self.until} must be times of day as HH:MM"
            raise ValueError(message)
        if self.begin >= self.until:
            message = f"the window from {self.begin} to {self.until} is empty; part it at midnight"
            raise ValueError(message)
        if self.start is not None and self.end is not None and self.start >= self.end:
            message = "the window ends before it starts"
            raise ValueError(message)
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            message = f"there is no time zone {self.zone!r}"
            raise ValueError(message) from error

    def holds(self, at: datetime) -> bool:
        """Tell whether an instant lies in the window."""
        if (self.start is not None and at < self.start) or (
            self.end is not None and at >= self.end
        ):
            return False
        local = at.astimezone(ZoneInfo(self.zone))
        if self.days and _WEEK[local.weekday()] not in self.days:
            return False
        return self.begin <= f"{local:%H:%M}" < self.until


class Envelope(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits inside which a program, such as the loop, may release without a person.

    Attributes:
        strategies: The ways in which it may.
        releases_per_day: Releases of a deployment that may begin within 24 hours.
        share_step: Most by which the candidate's share may grow at once, from the start to
            all of the traffic. Strategies that switch at once are bound by ``strategies`` alone.
        bump: The greatest step of the version that needs no person.
        loss_ratio: Most by which the candidate's mean loss at its gate may be a multiple of the
            champion's; None for what the gate itself allows.
    """

    strategies: tuple[Strategy, ...] = ("shadow", "canary", "blue_green", "ab", "bandit")
    releases_per_day: Annotated[int, Meta(ge=0, le=1_000)] = 10
    share_step: Annotated[float, Meta(gt=0, le=1)] = 0.75
    bump: Bump = "minor"
    loss_ratio: Annotated[float, Meta(gt=0, le=100)] | None = None


class ReleaseConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How new versions are released (``models.<name>.release``).

    Attributes:
        strategy: ``shadow`` compares without traffic first, then goes on as ``canary``, which
            gives traffic in stages; ``blue_green`` switches once the candidate stands ready, and
            watches; ``ab`` keeps one share until its end; ``bandit`` moves the share towards the
            better version; ``all_at_once`` switches, and watches.
        min_pairs: Requests answered by both versions, with labels, before a canary begins.
        shares: The canary's share of the traffic, stage by stage.
        ab_share: The candidate's share in an A/B test.
        bandit_share: Least share of either version under ``bandit``.
        blue_green_pairs: Requests answered by both versions, with labels, before the switch.
        min_stage_requests: Requests, by either arm, before the next stage.
        min_canary_requests: Requests answered by the canary before it is promoted.
        alpha: Chance at most of rolling back a version that is no worse than the margins allow,
            the watch after its promotion included; one in a thousand more for traffic that only
            looks wrongly split.
        beta: Chance at most of calling a version proven that is as bad as ``proof_margin``.
        margin: Part by which the rate of slow, wrong, unusual or overridden answers may exceed
            the champion's before it counts against the canary; errors and invalid answers have
            no margin.
        proof_margin: Part by which a rate must be proven not to exceed the champion's.
        paired_margin: Loss difference, as a part of the bound, that the shadow must rule out.
        prove: Guardrails that must be proven before a promotion; pairs prove the label loss, too.
        weights: Parts of the evidence of the guardrails named; the others keep theirs.
        step_up_evidence: No next stage while the evidence against the canary is this strong;
            the guarantee of ``alpha`` does not depend on it.
        deadline_days: When a decision falls even without proof.
        on_not_proven: What happens then.
        watch_days: How long a promoted version is watched, and undone on evidence; 0 for never.
        most_attempts: Releases of one version to a deployment that may gather evidence; each has
            its own chance ``alpha``.
        tier: How much harm the model can do.
        approvals: Approvals that a version needs, by tier, where it is not 0 for ``low``, 1 for
            ``limited`` and 2 for ``high``.
        freeze: Times in which nothing moves forward.
        envelope: What the loop may do by itself.
        drill_days: A rollback is to be exercised this often.
    """

    strategy: Strategy = "shadow"
    min_pairs: Annotated[int, Meta(ge=1)] = 48
    shares: Annotated[tuple[Share, ...], Meta(min_length=1, max_length=10)] = (
        0.01,
        0.05,
        0.1,
        0.25,
        0.5,
    )
    ab_share: Share = 0.5
    bandit_share: Annotated[float, Meta(gt=0, lt=0.5)] = 0.1
    blue_green_pairs: Count = 0
    min_stage_requests: Annotated[int, Meta(ge=1)] = 48
    min_canary_requests: Annotated[int, Meta(ge=1)] = 24
    alpha: Annotated[float, Meta(gt=0, lt=0.5)] = 0.01
    beta: Annotated[float, Meta(gt=0, lt=0.5)] = 0.05
    margin: Annotated[float, Meta(ge=0, le=2)] = 0.1
    proof_margin: Annotated[float, Meta(gt=0, le=10)] = 0.5
    paired_margin: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    prove: Annotated[tuple[Proof, ...], Meta(min_length=1, max_length=6)] = ("label_loss",)
    weights: dict[Proof, Weight] = {}
    step_up_evidence: Annotated[float, Meta(gt=1)] = 3.0
    deadline_days: Annotated[float, Meta(gt=0, le=365)] = 14.0
    on_not_proven: OnNotProven = "roll_back"
    watch_days: Annotated[float, Meta(ge=0, le=365)] = 7.0
    most_attempts: Annotated[int, Meta(ge=1, le=100)] = 2
    tier: Tier = "low"
    approvals: dict[Tier, Annotated[int, Meta(ge=0, le=20)]] = {}
    freeze: Annotated[tuple[FreezeWindow, ...], Meta(max_length=100)] = ()
    envelope: Envelope = Envelope()
    drill_days: Annotated[float, Meta(gt=0, le=3_650)] = 90.0

    def __post_init__(self) -> None:
        """Refuse shares that do not grow and weights that leave nothing.

        Raises:
            ValueError: of what is wrong.
        """
        if list(self.shares) != sorted(set(self.shares)):
            message = "the shares must grow from stage to stage"
            raise ValueError(message)
        if not any(weight > 0 for weight in self.all_weights().values()):
            message = "one guardrail needs a weight above 0"
            raise ValueError(message)

    def all_weights(self) -> dict[str, float]:
        """Return the weight of each guardrail."""
        return USUAL_WEIGHTS | {name: float(weight) for name, weight in self.weights.items()}

    def needed_approvals(self) -> int:
        """Return how many approvals a version needs at this tier."""
        return (USUAL_APPROVALS | self.approvals)[self.tier]

    def frozen_by(self, at: datetime) -> FreezeWindow | None:
        """Return the first freeze window that holds now, or None."""
        return next((window for window in self.freeze if window.holds(at)), None)
