"""The download link of an export: what a search finds, as a file, streamed from the disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from everloop.core.errors import InvalidInput
from everloop.interop.exporting import Format, export_rows, found_rows
from everloop.kernel.performer import Performer

PATH = "/api/v1/projects/{project}/export/{what}.{form}"
TYPES: dict[Format, str] = {
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv; charset=utf-8",
}
MANY = frozenset({"experiment", "fields"})
TAKEN = frozenset({"filter", "order", "limit", "after"})
PerformerFor = Callable[[Request], Performer]


def export_routes(performer_for: PerformerFor) -> list[Route]:
    """Return the route that exports a search: ``.../export/runs.csv?filter=...&order=...``.

    Args:
        performer_for: Returns who calls, in the project that the address names.
    """

    async def export(request: Request) -> Response:
        folder = tempfile.TemporaryDirectory(prefix="everloop-")
        try:
            path = await run_in_threadpool(_write, request, performer_for, Path(folder.name))
        except BaseException:
            folder.cleanup()
            raise
        # Never shown by a browser: what users wrote has no origin here.
        headers = {"content-security-policy": "sandbox; default-src 'none'"}
        return FileResponse(
            path,
            media_type=TYPES[_form(request)],
            filename=path.name,
            headers=headers,
            background=BackgroundTask(folder.cleanup),
        )

    return [Route(PATH, export, methods=["GET"], name="export")]


def _form(request: Request) -> Format:
    form = request.path_params["form"]
    for known in TYPES:
        if form == known:
            return known
    raise InvalidInput(
        "export.format_unknown",
        f"A search can't be exported as {str(form)[:20]!r}.",
        hint="End the address in .parquet or .csv.",
    )


def _write(request: Request, performer_for: PerformerFor, folder: Path) -> Path:
    form, what = _form(request), str(request.path_params["what"])
    performer, given = performer_for(request), request.query_params
    also: dict[str, object] = {
        name: tuple(given.getlist(name)) if name in MANY else given[name]
        for name in given
        if name not in TAKEN
    }
    rows = found_rows(
        performer,
        what,
        filter=given.get("filter", ""),
        order=given.get("order", ""),
        limit=_limit(given.get("limit")),
        also=also,
    )
    path = folder / f"{what}.{form}"
    export_rows(rows, path, form)
    return path


def _limit(text: str | None) -> int | None:
    if text is None:
        return None
    if text.isascii() and text.isdigit() and 0 < len(text) <= 9 and int(text) > 0:
        return int(text)
    raise InvalidInput(
        "input.invalid", f"limit: {text[:20]!r} is no number of rows.", hint="Give 1 or more."
    )
