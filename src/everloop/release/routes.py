"""The routes of a deployment as its records say; the file in the serving folder is their copy."""

from __future__ import annotations

import msgspec

from everloop.core.ids import Id
from everloop.core.wire import CanaryTarget, Routes, StandIn, Target, TokenHash
from everloop.kernel.unit_of_work import View
from everloop.registry.model import ModelVersion
from everloop.release.model import Deployment, State
from everloop.release.queries import live_release


def routes_of(
    view: View, deployment: Deployment, *, public_key: str, tokens: tuple[TokenHash, ...] = ()
) -> Routes:
    """Return which versions answer for a deployment now.

    Args:
        view: The records.
        deployment: Whose routes.
        public_key: Hex of the key that seals the bundles.
        tokens: Who may ask for predictions.
    """
    halt = deployment.halt
    live = live_release(view, deployment) if halt is None else None
    canary = shadow = None
    if live is not None and live.state is State.CANARY:
        canary = CanaryTarget(
            version_id=live.candidate,
            bundle=bundle_path(live.candidate),
            share=live.share,
            salt=live.id,
        )
    if live is not None and live.strategy in {"shadow", "blue_green"}:
        # Through the canary, too: the champion's answers go on making pairs, which prove sooner.
        # A candidate that stands by is warmed by them.
        shadow = _target(live.candidate)
    pinned = halt.version if halt is not None else None
    return Routes(
        epoch=deployment.epoch,
        deployment=deployment.name,
        public_key=public_key,
        tokens=tokens,
        champion=_target(pinned or deployment.champion),
        canary=canary,
        shadow=shadow,
        previous=_target(deployment.champion if pinned else deployment.previous),
        constant=halt.answer if halt is not None else None,
        stand_in=None if halt is None or halt.answer is None else _stand_in(view, deployment),
        # A drill is practice: it takes nothing from those who name a version.
        is_halted=halt is not None and halt.drill is None,
    )


def bundle_path(version: Id) -> str:
    """Return where the bundle of a version lies in the serving folder."""
    return f"bundles/{version}"


def _stand_in(view: View, deployment: Deployment) -> StandIn | None:
    champion = None if deployment.champion is None else view.get(ModelVersion, deployment.champion)
    if champion is None:
        return None
    fields = tuple(msgspec.to_builtins(field) for field in champion.signature.inputs)
    return StandIn(inputs=fields, output=champion.signature.output.name)


def _target(version: Id | None) -> Target | None:
    return None if version is None else Target(version_id=version, bundle=bundle_path(version))
