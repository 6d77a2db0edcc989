"""Which deployments a process hosts: one folder, all folders of a home, or sealed bundles alone.

``load`` runs before the process forks, so that its workers share the models' memory; ``open`` runs
in each worker, for its logs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from everloop.core.clock import Clock
from everloop.core.errors import InvalidInput, NotFound
from everloop.serve.answer import Answerer
from everloop.serve.bundle import DESCRIPTION
from everloop.serve.identity import IdBlocks
from everloop.serve.log import Block, Flusher, LogWriter
from everloop.serve.observe.jsonlog import say_failure
from everloop.serve.recording import Log
from everloop.serve.service import Endpoint, Service
from everloop.serve.still import Still
from everloop.serve.switchboard import ROUTES_FILE, Switchboard

SCAN_POLLS: Final = 25


class NoLog:
    """The log of a server that was given no place for one; every answer says so."""

    is_kept = False

    def append_all(self, blocks: Sequence[Block]) -> list[bool]:
        """Keep nothing."""
        return [False] * len(blocks)

    def append_shadow(self, first: bytes, outputs: object, statuses: bytes | None = None) -> bool:
        """Keep nothing."""
        del first, outputs, statuses
        return False

    def close(self) -> None:
        """Nothing is held."""


class Host:
    """The deployments of a process group.

    Args:
        places: Folders of deployments, homes of many of them, or sealed bundles.
        key: Hex of the only key whose bundles are accepted.
        log: Where bundles that stand alone are logged; folders of deployments have their own.
        by_folder: Call a bundle in a home as its folder, not as it says of itself.

    Attributes:
        broken: By name, why a bundle that was found later does not verify.
        guard: Held by whoever changes what is hosted.
    """

    def __init__(
        self,
        places: Sequence[Path],
        clock: Clock,
        *,
        key: str | None,
        log: Path | None,
        by_folder: bool = False,
    ) -> None:
        self._places = places
        self._clock = clock
        self._key = key
        self._log = log
        self._by_folder = by_folder
        self.boards: dict[str, Switchboard | Still] = {}
        self.broken: dict[str, str] = {}
        self._bundles: dict[Path, str] = {}
        self._rested: dict[str, Still] = {}
        self.guard = threading.RLock()

    def load(self) -> None:
        """Find the deployments and load what they serve.

        Raises:
            InvalidInput: ``serving.nothing`` for a place that holds nothing to serve.
            IntegrityError: a bundle that stands alone does not verify.
        """
        for place in self._places:
            self._look(place)
        for board in self.boards.values():
            board.forget_reports()
            board.reload()

    def open(self, service: Service, worker: str) -> None:
        """Make this process's endpoints, with logs of its own."""
        for name, board in self.boards.items():
            if name not in service.endpoints:
                board.take_over(worker)
                log = self._open_log(service, board.log, worker)
                answerer = Answerer(log, IdBlocks(), service.tally, turn=service.turn)
                service.endpoints[name] = Endpoint(name, board, answerer, log)

    @staticmethod
    def _open_log(service: Service, folder: Path | None, worker: str) -> Log:
        if folder is None:
            return NoLog()
        if service.flusher is None:
            service.flusher = Flusher()
        return LogWriter(folder, worker, flusher=service.flusher)

    def rescan(self, service: Service, worker: str) -> list[Endpoint]:
        """Host what has been deployed since, and return it."""
        with self.guard:
            known = set(service.endpoints)
            for place in self._places:
                if _is_home(place):
                    self._look_in(place)
            for name in set(self.boards) - known:
                self._try(name)
            self.open(service, worker)
            return [service.endpoints[name] for name in set(service.endpoints) - known]

    def find_bundles(self) -> list[str]:
        """Return the names of the bundles that stand alone, loaded or not."""
        with self.guard:
            for place in self._places:
                if _is_home(place):
                    self._look_in(place)
            return sorted(self._bundles.values())

    def load_bundle(self, name: str) -> None:
        """Load a bundle that stands alone, or load it again; answers go on meanwhile.

        Raises:
            IntegrityError: it does not verify; what was loaded stays.
            NotFound: ``model.not_available``.
        """
        with self.guard:
            self.find_bundles()
            folder = next((each for each, its in self._bundles.items() if its == name), None)
            if folder is None:
                raise NotFound(
                    "model.not_available",
                    f"There is no bundle of {name[:60]!r} here.",
                    hint="Put one into the folder that this server was started with.",
                )
            board = self.boards.get(name) or self._rested.get(name) or self._still(folder)
            board.reload()
            self.boards[name] = board
            self._rested.pop(name, None)
            self.broken.pop(name, None)

    def rest(self, name: str) -> None:
        """Free a bundle's memory when the last request that asks it has been answered."""
        with self.guard:
            board = self.boards.get(name)
            if isinstance(board, Still):
                del self.boards[name]
                self._rested[name] = board
                board.rest()

    def _try(self, name: str) -> None:
        """Load what was found; a bundle that does not verify is set aside until it is asked for."""
        try:
            self.boards[name].reload()
        except Exception as error:
            if not isinstance(self.boards[name], Still):
                raise
            del self.boards[name]
            self.broken[name] = str(error)[:500]
            say_failure(f"load {name}", error)

    def addresses(self, home: Path) -> Iterator[tuple[Path, str]]:
        """Yield where to tell what of the server's address; the home's own comes first."""
        is_home = _is_home(home)
        yield home, ""
        for name, board in self.boards.items():
            if is_home and isinstance(board, Switchboard):
                yield board.folder, f"/models/{quote(name)}"

    def _look(self, place: Path) -> None:
        if (place / DESCRIPTION).exists():
            still = self._still(place)
            name = place.name if self._by_folder and place not in self._places else still.name
            self._bundles[place] = name
            self._add(name, still)
        elif _is_home(place):
            self._look_in(place)
        else:
            self._add(place.name, self._board(place))

    def _look_in(self, home: Path) -> None:
        for folder in sorted(home.iterdir()):
            if folder.name not in self.boards and (folder / ROUTES_FILE).exists():
                self.boards[folder.name] = self._board(folder)
            elif folder not in self._bundles and (folder / DESCRIPTION).exists():
                self._look(folder)

    def _still(self, folder: Path) -> Still:
        still = Still(folder, self._key)
        still.log = None if self._log is None else self._log / still.name
        return still

    def _board(self, folder: Path) -> Switchboard:
        return Switchboard(folder, self._clock, pinned_key=self._key)

    def _add(self, name: str, board: Switchboard | Still) -> None:
        if name in self.boards:
            raise InvalidInput(
                "serving.twice",
                f"Two of the places serve a model {name!r}.",
                hint="Name each once; versions of one model belong to a deployment.",
            )
        self.boards[name] = board


def _is_home(place: Path) -> bool:
    """Tell whether a folder holds deployments or bundles, being neither itself."""
    return place.is_dir() and not any(
        (place / name).exists() for name in (ROUTES_FILE, DESCRIPTION, "deployment.json")
    )
