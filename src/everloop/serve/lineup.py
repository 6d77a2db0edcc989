"""Which versions answer at one moment, and which of them a request may ask for by its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from everloop.core.clock import Instant
from everloop.core.errors import Conflict, EverloopError, NotFound, Unavailable
from everloop.core.wire import Arm, LogRules
from everloop.serve.bundle import LoadedBundle
from everloop.serve.log import Source
from everloop.serve.observe.tally import Answers
from everloop.serve.scoring import Scorer


@dataclass(frozen=True, slots=True)
class Canary:
    """The canary with its share of the traffic."""

    scorer: Scorer
    share: float
    salt: str


class Chosen(NamedTuple):
    """The version by whose signature a request is read.

    Attributes:
        named: The version that answers whatever the arms are, since the caller named it; or None.
    """

    loaded: LoadedBundle
    named: LoadedBundle | None


@dataclass(frozen=True, slots=True)
class Lineup:
    """The versions that answer, and the tokens that may ask, at one moment.

    Attributes:
        champion: Answers what the canary does not. Under a constant it may be a stand-in, which
            lends its signature alone and is not resident.
        constant: Answers every row instead of any version; None but where a kill switch says so.
        others: Good tokens that may neither ask nor tell the truth.
        is_halted: Whether the champion alone answers, whichever version a caller names.
        resident: The versions that are loaded.
    """

    epoch: int = 0
    deployment: str = ""
    champion: Scorer | None = None
    canary: Canary | None = None
    shadow: Scorer | None = None
    resident: tuple[Scorer, ...] = ()
    constant: float | None = None
    is_halted: bool = False
    tokens: dict[str, Instant] = field(default_factory=dict)
    feedback_tokens: dict[str, Instant] = field(default_factory=dict)
    others: dict[str, Instant] = field(default_factory=dict)
    log: LogRules = field(default_factory=LogRules)
    common: dict[tuple[Scorer, Arm, bool], tuple[Source, Answers]] = field(default_factory=dict)

    def scorer(self, loaded: LoadedBundle) -> Scorer:
        """Return what asks a resident version."""
        return next(each for each in self.resident if each.loaded is loaded)

    def get_version(self, text: str | None) -> LoadedBundle:
        """Return a resident version by its semantic version, its number or its id, or the champion.

        Raises:
            Unavailable: ``model.none`` before the first release.
            NotFound: ``model.version_not_resident``.
        """
        if self.champion is None:
            raise no_model()
        if text is None:
            return self.champion.loaded
        for scorer in self.resident:
            bundle = scorer.loaded.bundle
            if text in (bundle.semver, str(bundle.number), bundle.version_id):
                return scorer.loaded
        here = ", ".join(scorer.loaded.bundle.semver for scorer in self.resident)
        raise NotFound(
            "model.version_not_resident",
            f"Version {text[:40]!r} of {self.deployment!r} is not loaded here.",
            hint=f"Loaded are: {here or 'none'}.",
        )

    def choose(self, text: str | None) -> Chosen:
        """Return the version that a caller may ask.

        A kill switch holds for those who name a version, too: its constant answers them, and
        without one they get the version that answers all, or nothing.

        Raises:
            Unavailable: ``model.none`` before the first release.
            NotFound: ``model.version_not_resident``.
            Conflict: ``deployment.halted``.
        """
        if text is None or (self.constant is not None and not self.resident):
            return Chosen(self.get_version(None), None)
        found = self.get_version(text)
        if self.is_halted and self.constant is None and found is not self.get_version(None):
            raise Conflict(
                "deployment.halted",
                f"The deployment {self.deployment!r} is halted: version {found.bundle.semver} "
                "answers nobody.",
                hint="Leave the version out of the address, or take the halt back with "
                "`everloop release resume`.",
            )
        return Chosen(found, found)


def no_model() -> EverloopError:
    """Return the error of a deployment without a champion."""
    return Unavailable(
        "model.none",
        "No model is released to this deployment yet.",
        hint="Release one with `everloop release start`.",
    )
