"""The table of all pages: which address shows or changes what."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from everloop.core.errors import NotFound
from everloop.kernel.perform import Kernel
from everloop.ui import (
    audit,
    comparison,
    datasets,
    deployments,
    experiments,
    files,
    fleets,
    lineage,
    loops,
    models,
    overview,
    plots,
    run,
    runs,
    sheets,
    targets,
    version,
)
from everloop.ui.entrance import entrance_routes
from everloop.ui.visit import Door, Handler, error_page

_SHOWN: Final[tuple[tuple[str, Handler], ...]] = (
    ("", overview.show),
    ("/datasets", datasets.show_list),
    ("/datasets/{name}", datasets.show_versions),
    ("/datasets/{name}/{number}", datasets.show_version),
    ("/runs", runs.show_list),
    ("/runs/names", runs.send_names),
    ("/runs/values", runs.send_values),
    ("/runs/points", runs.send_points),
    ("/runs/plot", plots.send_plot),
    ("/runs/export", sheets.send),
    ("/runs/{run}", run.show),
    ("/runs/{run}/files", files.show),
    ("/runs/{run}/file", files.send),
    ("/runs/{run}/system", run.show_system),
    ("/runs/{run}/environment", run.show_environment),
    ("/experiments", experiments.show_list),
    ("/experiments/{experiment}", experiments.show),
    ("/compare", comparison.show),
    ("/compare/points", comparison.send_points),
    ("/models", models.show_list),
    ("/models/{name}", models.show_model),
    ("/models/{name}/{version}", version.show),
    ("/models/{name}/{version}/files", version.show_file),
    ("/models/{name}/{version}/file", version.send_file),
    ("/deployments", deployments.show_list),
    ("/deployments/{name}", deployments.show_deployment),
    ("/deployments/{name}/losses", deployments.send_losses),
    ("/releases/{release}", deployments.show_release),
    ("/releases/{release}/traffic", deployments.send_traffic),
    ("/releases/{release}/evidence", deployments.send_evidence),
    ("/releases/{release}/proof", deployments.send_proof),
    ("/fleets", fleets.show_list),
    ("/fleets/{name}", fleets.show_fleet),
    ("/loop", loops.show_list),
    ("/loop/{run}", loops.show_run),
    ("/lineage", lineage.show),
    ("/audit", audit.show_list),
    ("/audit/{index}", audit.show_entry),
    ("/ref/{ref}", targets.follow),
)
_CHANGED: Final[tuple[tuple[str, Handler], ...]] = (
    ("/models/{name}/about", models.edit),
    ("/models/{name}/tag", models.set_tag),
    ("/models/{name}/untag", models.take_tag),
    ("/models/{name}/alias", models.move_alias),
    ("/models/{name}/delete", models.delete),
    ("/models/{name}/restore", models.restore),
    ("/models/{name}/{version}/note", version.edit),
    ("/models/{name}/{version}/tag", version.set_tag),
    ("/models/{name}/{version}/untag", version.take_tag),
    ("/models/{name}/{version}/delete", version.delete),
    ("/models/{name}/{version}/restore", version.restore),
    ("/experiments/make", experiments.make),
    ("/experiments/{experiment}/name", experiments.rename),
    ("/experiments/{experiment}/note", experiments.write_note),
    ("/experiments/{experiment}/tag", experiments.set_tag),
    ("/experiments/{experiment}/untag", experiments.take_tag),
    ("/experiments/{experiment}/delete", experiments.delete),
    ("/experiments/{experiment}/restore", experiments.restore),
    ("/runs/views", runs.save_view),
    ("/runs/views/delete", runs.delete_view),
    ("/runs/delete", runs.delete),
    ("/runs/restore", runs.restore),
    ("/runs/{run}/name", run.rename),
    ("/runs/{run}/note", run.write_note),
    ("/runs/{run}/tag", run.set_tag),
    ("/runs/{run}/untag", run.take_tag),
    ("/runs/{run}/delete", run.delete),
    ("/runs/{run}/restore", run.restore),
    ("/deployments/{name}/roll-back", deployments.roll_back),
    ("/deployments/{name}/halt", deployments.halt),
    ("/deployments/{name}/resume-releases", deployments.resume),
    ("/deployments/{name}/drill", deployments.drill),
    ("/deployments/{name}/pause", loops.pause),
    ("/deployments/{name}/resume", loops.resume),
    ("/fleets/{name}/step", fleets.step),
    ("/fleets/{name}/roll-back", fleets.roll_back),
    ("/alerts/{alert}/acknowledge", deployments.acknowledge),
    ("/audit/verify", audit.verify),
)
ROOT: Final = "/p/{project}"


class KeptFiles(StaticFiles):
    """Our scripts and styles: a browser keeps those that are asked for by their digest."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        """Return a file; its address changes when any of them does."""
        response = super().file_response(*arguments, **options)
        scope = arguments[2] if len(arguments) > 2 else options["scope"]
        if scope["query_string"].startswith(b"v="):
            response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response


def page_routes(kernel: Kernel) -> list[BaseRoute]:
    """Return the routes of all pages and of the files they need; each asks for a session."""
    door = Door(kernel)
    shown = [
        Route(ROOT + path, door.shows(handler), methods=["GET"], name=f"page{path}")
        for path, handler in _SHOWN
    ]
    changed = [
        Route(ROOT + path, door.changes(handler), methods=["POST"], name=f"change{path}")
        for path, handler in _CHANGED
    ]
    return [
        Mount("/static", KeptFiles(packages=[("everloop.ui", "static")]), name="static"),
        *entrance_routes(kernel),
        *changed,
        *shown,
        Route("/p/{rest:path}", _nothing_here, methods=["GET"], name="page.nothing"),
    ]


def _nothing_here(request: Request) -> Response:
    del request
    return error_page(
        NotFound(
            "page.not_found",
            "There is no page at this address.",
            hint="Start from the overview.",
        )
    )
