"""Student's t distribution from SciPy, the extra ``stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everloop.core.errors import MissingExtra

if TYPE_CHECKING:
    from types import ModuleType


def t_lower_tail(t: float, freedom: float) -> float:
    """Return the probability that Student's t is at most ``t``."""
    return float(_special().stdtr(freedom, t))


def t_quantile(share: float, freedom: float) -> float:
    """Return the quantile of Student's t at a share."""
    return float(_special().stdtrit(freedom, share))


def _special() -> ModuleType:
    try:
        from scipy import special
    except ImportError as error:
        raise MissingExtra(
            "extra.stats_missing",
            "The paired t-test needs SciPy, which is not installed.",
            hint='Install it with `pip install "everloop[stats]"`, or use the sign-flip test.',
        ) from error
    module: ModuleType = special
    return module
