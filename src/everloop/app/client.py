"""The one way in for people and programs: a project, near in a folder or far behind HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from everloop.app.home import CONFIG_NAME, Home, find_home
from everloop.core.errors import InvalidInput, NotFound
from everloop.kernel.bootstrap import OWNER

if TYPE_CHECKING:
    import pyarrow as pa

    from everloop.core.ports import BlobStore
    from everloop.kernel.perform import Kernel
    from everloop.kernel.performer import Performer

URL_VARIABLE = "EVERLOOP_URL"
TOKEN_VARIABLE = "EVERLOOP_TOKEN"  # noqa: S105 -- names a variable
PROJECT_VARIABLE = "EVERLOOP_PROJECT"
SPOOL_VARIABLE = "EVERLOOP_SPOOL"
ACTOR_VARIABLE = "EVERLOOP_ACTOR"
SCHEMES = ("http://", "https://")
A = TypeVar("A", bound=msgspec.Struct)


class Client:
    """A connection to one project; a Performer itself. Thread-safe.

    Attributes:
        home: The home folder of an embedded instance, None for a server.
        url: Address of the server, None for an embedded instance.
    """

    def __init__(
        self,
        performer: Performer,
        *,
        home: Home | None = None,
        url: str | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        self._performer = performer
        self.home = home
        self.url = url
        self.kernel = kernel

    @property
    def project(self) -> str:
        """Name of the project."""
        return self._performer.project

    @property
    def blobs(self) -> BlobStore:
        """Bytes under their digest."""
        return self._performer.blobs

    @property
    def folder(self) -> Path:
        """The project's folder; the one at hand for a connection to a server."""
        return self.home.project_folder if self.home is not None else Path.cwd()

    @property
    def spool(self) -> Path:
        """Folder in which tracking data waits to be shipped; ``EVERLOOP_SPOOL`` names another."""
        named = os.environ.get(SPOOL_VARIABLE)
        if named:
            return Path(named)
        if self.home is not None:
            return self.home.spool
        return Path.home() / ".cache" / "everloop" / "spool"

    def perform(
        self,
        verb: str,
        ask: msgspec.Struct,
        answer: type[A],
        *,
        request: str | None = None,
        reason: str | None = None,
    ) -> A:
        """Perform a verb and return its answer.

        Raises:
            EverloopError: what the verb raises.
        """
        return self._performer.perform(verb, ask, answer, request=request, reason=reason)

    def search(
        self,
        what: str,
        filter: str = "",
        *,
        order: str = "",
        limit: int | None = None,
        **also: object,
    ) -> pa.Table:
        """Return what a search finds as a flat Arrow table (``.to_pandas()`` makes a frame of it).

        Args:
            what: ``runs``, ``experiments``, ``models``, ``versions``, ``datasets``,
                ``deployments``, ``releases`` or ``predictions``.
            filter: Which rows, such as ``metrics.auc > 0.9 and params.model = 'xgb'``.
            order: How they are sorted, such as ``metrics.auc DESC``.
            limit: Rows at most; all when None.
            also: Further fields of the search, such as ``experiment=("credit",)``.

        Raises:
            InvalidInput: ``export.unknown``, or what is wrong with filter or order.
        """
        from everloop.app.verbs import load_verbs
        from everloop.interop.exporting import found_rows, to_arrow

        load_verbs()
        return to_arrow(found_rows(self, what, filter=filter, order=order, limit=limit, also=also))

    def search_runs(
        self, filter: str = "", *, order: str = "", limit: int | None = None, **also: object
    ) -> pa.Table:
        """Return runs as a flat Arrow table: ``params.x``, ``metrics.x``, ``tags.x``.

        Raises:
            InvalidInput: what is wrong with filter or order.
        """
        return self.search("runs", filter, order=order, limit=limit, **also)

    def read_metric(self, run: str, key: str) -> pa.Table:
        """Return every point of a metric, in the order of logging.

        Args:
            run: Id of the run.
            key: Name of the metric.

        Returns:
            An Arrow table with the columns ``step`` (int64), ``time`` (UTC, microseconds) and
            ``value`` (float64; NaN and the infinities as they were logged).

        Raises:
            NotFound: ``run.not_found`` or ``metric.not_found``.
        """
        import pyarrow as pa

        from everloop.track.history import history_of

        points = history_of(self, run, key)
        times = pa.array(points.times_us, pa.timestamp("us", tz="UTC"))
        return pa.table({"step": points.steps, "time": times, "value": points.values})

    def download_artifacts(
        self, run: str, path: str = "", *, to: Path | str = ".", replace: bool = False
    ) -> list[Path]:
        """Write a run's files below a folder, each verified against its digest.

        Args:
            run: Id of the run.
            path: A file or a folder within the run; everything when empty.
            to: The folder, which is made when missing.
            replace: Whether files that are there may be replaced.

        Returns:
            Where the files lie.

        Raises:
            NotFound: ``run.not_found`` or ``artifact.not_found``.
            Conflict: ``artifact.target_exists``, before anything is written.
            InvalidInput: ``artifact.target_invalid``.
            IntegrityError: ``blob.corrupt``.
        """
        from everloop.track.download import download_artifacts

        return download_artifacts(self, run, path, to=Path(to), replace=replace)

    def close(self) -> None:
        """Release the store or the connections; idempotent."""
        if self.kernel is not None:
            self.kernel.store.close()
        closer = getattr(self._performer, "close", None)
        if closer is not None:
            closer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def connect(
    place: str | Path | None = None, *, project: str | None = None, token: str | None = None
) -> Client:
    """Open a project: a folder's own, or one on a server.

    Args:
        place: A folder in the project, or a server's address (``http://...``); ``EVERLOOP_URL``,
            else the folder at hand, when left out.
        project: Its name; ``EVERLOOP_PROJECT``, else the name in everloop.yaml, when left out.
        token: For a server; ``EVERLOOP_TOKEN`` when left out.

    Raises:
        NotFound: ``home.not_found`` when no folder upwards is a project.
        InvalidInput: the address, the token or the project's name is missing or wrong.
    """
    if place is None:
        named = os.environ.get(URL_VARIABLE)
        if named:
            return _connect_server(check_address(named), project, token)
        return connect_home(find_home(), project=project)
    if isinstance(place, str) and (place.startswith(SCHEMES) or not Path(place).exists()):
        return _connect_server(check_address(place), project, token)
    return connect_home(find_home(Path(place)), project=project)


def check_address(text: str) -> str:
    """Return a server's address without the slash at its end.

    Whoever mistypes it must not change the project that lies at hand instead.

    Raises:
        InvalidInput: ``server.address_invalid``.
    """
    if not text.startswith(SCHEMES):
        raise InvalidInput(
            "server.address_invalid",
            f"{text[:80]!r} is no server's address.",
            hint="Write it like http://127.0.0.1:7300.",
        )
    return text.rstrip("/")


def connect_home(home: Home, *, project: str | None = None, actor: str | None = None) -> Client:
    """Open an embedded instance as its owner: whoever can read its keys may do everything.

    Raises:
        InvalidInput: ``project.unnamed``, or what is wrong with everloop.yaml.
    """
    from everloop.app.wiring import open_kernel
    from everloop.kernel.bootstrap import local_caller
    from everloop.kernel.performer import LocalPerformer

    kernel = open_kernel(home)
    caller = local_caller(kernel, actor or os.environ.get(ACTOR_VARIABLE) or OWNER)
    name = project or os.environ.get(PROJECT_VARIABLE) or configured_project(home)
    return Client(LocalPerformer(kernel, caller, name), home=home, kernel=kernel)


def configured_project(home: Home) -> str:
    """Return the project's name in everloop.yaml.

    Raises:
        InvalidInput: ``project.unnamed`` without a file, or what is wrong with it.
    """
    from everloop.app.config import load_config

    try:
        return load_config(home.project_folder / CONFIG_NAME).project
    except NotFound as error:
        raise InvalidInput(
            "project.unnamed",
            f"There is no {CONFIG_NAME} that names the project.",
            hint=f"Run `everloop init`, give --project, or set {PROJECT_VARIABLE}.",
        ) from error


def _connect_server(url: str, project: str | None, token: str | None) -> Client:
    from everloop.app.remote import HttpPerformer

    # A line end from a file or a prompt is no part of a token.
    secret = (token or os.environ.get(TOKEN_VARIABLE) or "").strip()
    if not secret:
        raise InvalidInput(
            "token.missing",
            f"The server at {url} needs a token.",
            hint=f"Make one there with `everloop token create`, and set {TOKEN_VARIABLE}.",
        )
    if not (secret.isascii() and secret.isprintable()):
        raise InvalidInput(
            "token.malformed",
            "The token holds characters that no token has.",
            hint=f"Copy it again, without line ends, into {TOKEN_VARIABLE}.",
        )
    name = project or os.environ.get(PROJECT_VARIABLE) or _project_at_hand()
    if not name:
        raise InvalidInput(
            "project.unnamed",
            f"A server may hold many projects, and no {CONFIG_NAME} here names one.",
            hint=f"Give --project (in Python: project=...), or set {PROJECT_VARIABLE}.",
        )
    return Client(HttpPerformer(url, secret, name), url=url)


def _project_at_hand() -> str | None:
    """Return the name in the nearest everloop.yaml; a checkout has one without a home folder."""
    from everloop.app.config import load_config

    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / CONFIG_NAME).is_file():
            return load_config(folder / CONFIG_NAME).project
    return None


def with_reason(client: Performer, reason: str | None) -> Performer:
    """Return a performer that gives this reason with every call that gives none."""
    return client if reason is None else _Reasoned(client, reason)


class _Reasoned:
    def __init__(self, inner: Performer, reason: str) -> None:
        self._inner = inner
        self._reason = reason

    @property
    def project(self) -> str:
        """Name of the project."""
        return self._inner.project

    @property
    def blobs(self) -> BlobStore:
        """Bytes under their digest."""
        return self._inner.blobs

    def perform(
        self,
        verb: str,
        ask: msgspec.Struct,
        answer: type[A],
        *,
        request: str | None = None,
        reason: str | None = None,
    ) -> A:
        """Perform a verb for the reason at hand."""
        return self._inner.perform(
            verb, ask, answer, request=request, reason=reason or self._reason
        )
