"""A sealed bundle that stands alone, where no routes say what answers."""

from __future__ import annotations

from pathlib import Path

from everloop.core.wire import RefusedBundle
from everloop.serve.bundle import key_bytes, open_bundle, read_key, read_name
from everloop.serve.lineup import Lineup
from everloop.serve.scoring import Scorer


class Still:
    """A sealed bundle that stands alone: one version, no routes, no tokens."""

    refused: tuple[RefusedBundle, ...] = ()

    def __init__(self, folder: Path, key: str | None) -> None:
        self.folder = folder
        self.log: Path | None = None
        self.lineup = Lineup()
        self._key = key
        self.name = read_name(folder)

    def is_stale(self) -> bool:
        """Nothing changes by itself."""
        return False

    def forget_reports(self) -> None:
        """There are none."""

    def take_over(self, worker: str) -> None:
        """There is nobody to report to."""

    def reload(self) -> None:
        """Open the bundle.

        Raises:
            IntegrityError: it does not verify.
        """
        scorer = Scorer(open_bundle(self.folder, key_bytes(self._key or read_key(self.folder))))
        scorer.warm()
        bundle = scorer.loaded.bundle
        replaced = self.lineup.resident
        self.lineup = Lineup(
            deployment=bundle.deployment or bundle.model, champion=scorer, resident=(scorer,)
        )
        _let_go(replaced)

    def rest(self) -> None:
        """Let go of the version; requests in flight still hold it."""
        replaced = self.lineup.resident
        self.lineup = Lineup(deployment=self.lineup.deployment)
        _let_go(replaced)


def _let_go(scorers: tuple[Scorer, ...]) -> None:
    for scorer in scorers:
        scorer.close()
