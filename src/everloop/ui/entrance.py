"""The way in and out: login link, logout, and the choice of a project."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from everloop.core.errors import EverloopError, NotAuthenticated
from everloop.kernel.perform import Kernel
from everloop.ui import render
from everloop.ui.session import (
    COOKIE,
    close_session,
    find_session,
    open_session,
    require_same_site,
    set_cookie,
)
from everloop.ui.visit import Door, Visit, error_page, read_form


def entrance_routes(kernel: Kernel) -> list[BaseRoute]:
    """Return the routes that need no project."""
    door = Door(kernel)

    def ask(request: Request) -> Response:
        code = request.query_params.get("code", "")
        if not code:
            if find_session(request, kernel):
                return RedirectResponse("/", status_code=303)
            return error_page(_no_code())
        # Looking at the link must not use it up: programs that preview links only look.
        return render.html(render.page("login.html", code=code[:200]))

    async def enter(request: Request) -> Response:
        try:
            require_same_site(request)
            form = await read_form(request)
            opened = await run_in_threadpool(open_session, kernel, form.get("code", ""))
        except EverloopError as error:
            return error_page(error)
        lifetime = opened.expires_at - kernel.services.clock.now()
        response = RedirectResponse("/", status_code=303)
        set_cookie(response, request, opened, int(lifetime.total_seconds()))
        return response

    def leave(visit: Visit) -> Response:
        close_session(kernel, visit.session)
        response = RedirectResponse("/login", status_code=303)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return response

    return [
        Route("/login", ask, methods=["GET"], name="page.login"),
        Route("/login", enter, methods=["POST"], name="page.login_open"),
        Route("/logout", door.changes(leave), methods=["POST"], name="page.logout"),
        Route("/", door.shows(choose_project), methods=["GET"], name="page.home"),
    ]


def choose_project(visit: Visit) -> Response:
    """Go to the only project there is, or let the visitor choose."""
    projects = visit.me.projects
    if len(projects) == 1:
        return RedirectResponse(render.address("p", projects[0]), status_code=303)
    return visit.show("projects.html")


def _no_code() -> NotAuthenticated:
    return NotAuthenticated(
        "login.missing",
        "You are not logged in.",
        hint="Print a login link with `everloop token login`.",
    )
