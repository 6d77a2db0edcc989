"""Attacks on the pages: scripts in names, forged forms, foreign projects, tricks in addresses."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from everloop.core.ids import ActorId
from everloop.core.ports import where
from everloop.kernel import admin, tokens
from everloop.kernel.authz import Actor, Caller, Role, Token
from everloop.kernel.ledger.log import LedgerEntry
from everloop.release.model import State
from everloop.ui.session import COOKIE
from tests.unit.ui.filled import Filled, Reader, app_of, login_code, session_of

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


@pytest.fixture(scope="module")
def evil() -> Filled:
    """Give a project in which every text that a user may choose is an attack."""
    return Filled(text=EVIL)


@pytest.fixture
def plain() -> Filled:
    return Filled()


class Tags(HTMLParser):
    """The tags of a page with the names of their attributes, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, set[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name for name, _ in attrs}))


def addresses(filled: Filled) -> list[str]:
    assert filled.live is not None
    inside = [
        "",
        "/runs",
        "/runs?experiment=demand&status=finished",
        "/runs?show=charts",
        "/runs?show=parallel&col=params.rate",
        "/runs?trash=yes",
        f"/runs/{filled.runs[0]}",
        f"/runs/{filled.runs[0]}/files",
        f"/runs/{filled.runs[0]}/system",
        f"/runs/{filled.runs[0]}/environment",
        f"/compare?run={filled.runs[0]}&run={filled.runs[1]}",
        "/experiments",
        "/experiments?trash=yes",
        f"/experiments/{filled.experiment}",
        "/models",
        "/models/demand",
        "/models?trash=yes",
        "/models/demand?as_of=2026-01-02T00:00",
        "/models/demand?trash=yes",
        f"/models/demand/{filled.versions[0].version}",
        f"/models/demand/{filled.versions[0].version}/files?path={filled.versions[0].files[0].path}",
        "/datasets",
        "/datasets/bike",
        "/datasets/bike/1",
        "/deployments",
        "/deployments/bikes",
        f"/releases/{filled.live.release.id}",
        "/loop",
        f"/loop/{filled.turn}",
        "/lineage",
        f"/lineage?ref=model_version:{filled.versions[0].id}",
        "/audit",
        "/audit/3",
    ]
    return ["/p/demo" + path for path in inside]


def forms(filled: Filled) -> list[str]:
    names = [f"/deployments/bikes/{deed}" for deed in ("roll-back", "pause", "resume")]
    names += [f"/runs/{deed}" for deed in ("views", "views/delete", "delete", "restore")]
    names += ["/experiments/make"]
    of_run = ("name", "note", "tag", "untag", "delete", "restore")
    names += [f"/runs/{filled.runs[0]}/{deed}" for deed in of_run]
    of_experiment = ("name", "note", "tag", "untag", "delete", "restore")
    names += [f"/experiments/{filled.experiment}/{deed}" for deed in of_experiment]
    of_model = ("about", "tag", "untag", "alias", "delete", "restore")
    names += [f"/models/demand/{deed}" for deed in of_model]
    version = f"/models/demand/{filled.versions[0].version}"
    names += [f"{version}/{deed}" for deed in ("note", "tag", "untag", "delete", "restore")]
    return [
        "/logout",
        *("/p/demo" + path for path in (*names, f"/alerts/{filled.alert}/acknowledge")),
        "/p/demo/audit/verify",
    ]


def test_no_text_of_a_user_becomes_markup_on_any_page(evil: Filled) -> None:
    reader = evil.reader()
    seen = 0

    for path in addresses(evil):
        text = reader.get(path).text
        seen += "&lt;script&gt;alert(1)" in text
        assert "<script>alert(1)" not in text, path
        assert not any(tag == "img" for tag, _ in Tags(text).found), path
        assert "49" not in re.findall(r"onerror=alert\(2\)&gt;(\d+)", text), path

    assert seen >= 8


def test_parameters_of_an_address_are_escaped_too(evil: Filled) -> None:
    reader = evil.reader()

    paths = ("/lineage?ref=", "/runs?experiment=", "/audit?action=", "/models/")
    of_runs = ("filter", "order", "col", "show", "after", "experiment")
    of_models = ("models?filter=", "models/demand?filter=", "models/demand?as_of=")
    for path in (*paths, *(f"/runs?{name}=" for name in of_runs), *(f"/{p}" for p in of_models)):
        answer = reader.get("/p/demo" + path + "%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E")
        assert "<script>alert(1)" not in answer.text, path


def test_a_login_code_is_escaped_in_the_form_that_sends_it(plain: Filled) -> None:
    text = Reader(app_of(plain.world.kernel)).get("/login?code=%22%3E%3Cscript%3E").text

    assert "<script>" not in text


def test_a_page_holds_no_inline_script_style_or_handler(evil: Filled) -> None:
    reader = evil.reader()

    for path in addresses(evil):
        tags = Tags(reader.get(path).text)
        assert all("src" in names for tag, names in tags.found if tag == "script"), path
        assert not any(tag == "style" for tag, _ in tags.found), path
        names = {name for _, names in tags.found for name in names}
        assert not {n for n in names if n == "style" or n.startswith(("on", "hx-on", "hx-vals"))}


def test_every_page_forbids_framing_and_foreign_scripts(plain: Filled) -> None:
    reader = plain.reader()

    for path in (*addresses(plain), "/login?code=x", "/p/demo/nowhere"):
        headers = reader.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"], path
        assert headers["x-frame-options"] == "DENY", path
        assert headers["cache-control"] == "no-store", path


def test_no_page_opens_without_a_session(plain: Filled) -> None:
    nobody = Reader(app_of(plain.world.kernel))

    for path in ("/", *addresses(plain)):
        answer = nobody.get(path)
        assert 401 == answer.status_code, path
        assert "everloop token login" in answer.text


@pytest.mark.parametrize("secret", ["", "x", "evl_" + "0" * 64, "%c3%a9" * 40])
def test_an_unknown_cookie_is_no_session(plain: Filled, secret: str) -> None:
    stranger = Reader(app_of(plain.world.kernel))
    stranger.headers = {"cookie": f"{COOKIE}={secret}"}

    assert 401 == stranger.get("/p/demo").status_code


def test_an_api_token_is_no_session(plain: Filled) -> None:
    made = plain.world.instance(tokens.CreateToken(name="api"), "token.create")
    assert isinstance(made, tokens.NewToken)

    assert 401 == Reader(app_of(plain.world.kernel), made.secret).get("/p/demo").status_code


def test_a_session_ends_with_its_time_and_with_its_actor(plain: Filled) -> None:
    plain.world.person("vera", Role.VIEWER, project="*")
    vera = plain.world.people["vera"]
    reader = Reader(app_of(plain.world.kernel), session_of(plain.world, vera))
    assert 200 == reader.get("/p/demo").status_code

    plain.world.instance(admin.DisableActor(actor="vera"), "actor.disable")

    assert 401 == reader.get("/p/demo").status_code
    owner = plain.reader()
    plain.world.clock.push(hours=13)
    assert 401 == owner.get("/p/demo").status_code


def test_a_form_without_the_token_of_its_session_changes_nothing(plain: Filled) -> None:
    reader = plain.reader()
    stranger = plain.reader().csrf("/p/demo")
    before = entries(plain)

    for path in forms(plain):
        for csrf in (None, "", "0" * 64, stranger):
            form = {"reason": "because", "confirm": "yes"} | ({"csrf": csrf} if csrf else {})
            assert 403 == reader.post(path, form).status_code, path

    assert before == entries(plain)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_form_from_another_site_changes_nothing(plain: Filled, headers: dict[str, str]) -> None:
    reader = plain.reader()
    csrf = reader.csrf("/p/demo")
    code = login_code(plain.world)
    before = entries(plain)
    reader.headers = headers

    for path in forms(plain):
        form = {"csrf": csrf, "reason": "because", "confirm": "yes"}
        assert 403 == reader.post(path, form).status_code, path
    assert 403 == reader.post("/login", {"code": code}).status_code

    assert before == entries(plain)


def test_a_form_is_refused_as_a_get(plain: Filled) -> None:
    reader = plain.reader()

    assert {400, 404, 405} >= {reader.get(path).status_code for path in forms(plain)}


def test_a_change_needs_a_reason_and_a_confirmation(plain: Filled) -> None:
    reader = plain.reader()
    csrf = reader.csrf("/p/demo")
    before = entries(plain)

    for form in ({}, {"reason": "x"}, {"confirm": "yes"}, {"reason": " ", "confirm": "yes"}):
        answer = reader.post("/p/demo/deployments/bikes/roll-back", {"csrf": csrf} | form)
        assert 400 == answer.status_code
    long = {"csrf": csrf, "reason": "x" * 501, "confirm": "yes"}
    assert 400 == reader.post("/p/demo/deployments/bikes/roll-back", long).status_code

    assert before == entries(plain)


def test_a_viewer_may_look_but_not_change(plain: Filled) -> None:
    plain.world.person("vera", Role.VIEWER, project="*")
    reader = Reader(app_of(plain.world.kernel), session_of(plain.world, plain.world.people["vera"]))
    csrf = reader.csrf("/p/demo")

    answer = reader.post(
        "/p/demo/deployments/bikes/roll-back", {"csrf": csrf, "reason": "mine", "confirm": "yes"}
    )

    assert 403 == answer.status_code
    live = plain.released.deployment().live
    assert live is not None
    assert State.CANARY is live.state


def test_a_foreign_project_shows_nothing_of_itself(plain: Filled) -> None:
    plain.world.project("secret")
    guest = only_in(plain, "demo")
    reader = Reader(app_of(plain.world.kernel), guest)

    for path in addresses(plain):
        foreign = reader.get(path.replace("/p/demo", "/p/secret"))
        missing = reader.get(path.replace("/p/demo", "/p/absent"))
        assert foreign.status_code == missing.status_code in {403, 404}, path
        assert foreign.text.replace("secret", "absent") == missing.text, path


def test_the_menu_names_only_projects_that_one_may_open(plain: Filled) -> None:
    plain.world.project("secret")
    reader = Reader(app_of(plain.world.kernel), only_in(plain, "demo"))

    assert "secret" not in reader.get("/p/demo").text


def test_things_of_another_project_are_not_found_by_their_ids(plain: Filled) -> None:
    plain.world.project("other")
    reader = plain.reader()
    assert plain.live is not None

    for path in (
        f"/runs/{plain.runs[0]}",
        f"/runs/{plain.runs[0]}/files",
        f"/runs/{plain.runs[0]}/file?path=x",
        f"/runs/{plain.runs[0]}/system",
        f"/runs/{plain.runs[0]}/environment",
        f"/releases/{plain.live.release.id}",
        f"/loop/{plain.turn}",
        "/models/demand",
        "/deployments/bikes",
        "/datasets/bike/1",
    ):
        assert 404 == reader.get("/p/other" + path).status_code, path


@pytest.mark.parametrize(
    "name",
    [
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "%00",
        "%0d%0aSet-Cookie:x=1",
        "a" * 1500,
        "%ff%fe",
        "-1",
        "9" * 30,
        "{{7*7}}",
        "'%20OR%201=1--",
        "%ed%a0%80",
    ],
)
def test_tricks_in_an_address_are_refused_cleanly(plain: Filled, name: str) -> None:
    reader = plain.reader()

    for part in ("runs", "models", "datasets", "deployments", "releases", "loop", "audit", "ref"):
        answer = reader.get(f"/p/demo/{part}/{name}")
        assert answer.status_code in {303, 400, 404}, (part, answer.status_code)
        assert "Traceback" not in answer.text
        assert "set-cookie" not in answer.headers
    for path in (f"/p/{name}", f"/p/demo/models/demand/{name}", f"/p/demo/datasets/bike/{name}"):
        assert reader.get(path).status_code in {303, 400, 403, 404}, path


@pytest.mark.parametrize(
    "query",
    [
        "runs?status=nonsense",
        "runs?after=" + "x" * 500,
        "runs?after=nonsense",
        "models?after=nonsense",
        "deployments?after=" + "x" * 500,
        "audit?after=x&action=" + "y" * 500,
        "lineage?ref=x&direction=sideways",
        "lineage?ref=verb:run.log",
        "audit?resource=x:y&outcome=denied",
        "lineage?ref=" + "x" * 2000,
        "compare?run=a&run=b",
        "compare?run=a",
        "compare/points?run=x",
        "runs?filter=" + "(" * 200,
        "runs?filter=metrics.loss+%3E+%27x",
        "runs?order=nonsense+sideways",
        "runs?col=metrics.&col=params." + "x" * 400 + "&size=9999&show=x",
        "runs/plot?run=x&key=loss&known=1:2:3:4",
        "runs/plot?run=x&key=loss&points=0",
        "runs/plot?run=x&first=nan&last=x",
        "runs/plot?" + "&".join("run=x" for _ in range(500)),
        "runs/values?space=nonsense&key=x",
        "runs/names?prefix=" + "x" * 900,
        "runs/points?filter=%27",
        "models?filter=nonsense+%3D+1",
        "models?trash=yes&after=nonsense",
        "models/demand?filter=%28&as_of=yesterday",
        "models/demand?as_of=9999-99-99T99:99",
        "models/demand/1.0.0/files",
        "models/demand/1.0.0/file?path=../../etc/passwd",
    ],
)
def test_wrong_parameters_are_refused_cleanly(plain: Filled, query: str) -> None:
    answer = plain.reader().get("/p/demo/" + query)

    assert answer.status_code in {200, 400, 404}
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "path", ["/static/../pages.py", "/static/%2e%2e/pages.py", "/static/..%2f..%2fui/pages.py"]
)
def test_static_files_end_at_their_folder(plain: Filled, path: str) -> None:
    answer = plain.reader().get(path)

    assert 404 == answer.status_code
    assert "def page_routes" not in answer.text


def test_a_redirect_stays_on_this_server(plain: Filled) -> None:
    reader = plain.reader()
    csrf = reader.csrf("/p/demo")
    form = {"csrf": csrf, "reason": "seen", "confirm": "yes", "back": "//evil.example/x"}

    answer = reader.post(f"/p/demo/alerts/{plain.alert}/acknowledge", form)

    assert 303 == answer.status_code
    assert answer.headers["location"].startswith("/p/demo/deployments/")
    assert "//evil" not in answer.headers["location"]


def test_a_form_that_is_too_large_or_no_form_is_refused(plain: Filled) -> None:
    reader = plain.reader()
    form = {"csrf": "x", "reason": "y" * 70_000}
    path = "/p/demo/deployments/bikes/roll-back"

    assert 413 == reader.post(path, form).status_code
    assert 400 == reader.post(path, {str(number): "x" for number in range(50)}).status_code
    reader.headers = {"content-type": "text/plain"}
    assert 400 == reader.post(path, {"csrf": "x"}).status_code


def test_a_login_link_opens_one_session_and_looking_does_not_use_it_up(plain: Filled) -> None:
    nobody = Reader(app_of(plain.world.kernel))
    code = login_code(plain.world)

    for _ in range(3):
        assert 200 == nobody.get(f"/login?code={code}").status_code
    first = nobody.post("/login", {"code": code})
    second = nobody.post("/login", {"code": code})

    assert (303, 401) == (first.status_code, second.status_code)
    cookie = first.headers["set-cookie"].lower()
    assert {"httponly", "samesite=strict", "path=/"} <= set(cookie.split("; "))


def test_a_closed_session_opens_nothing_even_with_its_cookie(plain: Filled) -> None:
    reader = plain.reader()

    answer = reader.post("/logout", {"csrf": reader.csrf("/p/demo")})

    assert 303 == answer.status_code
    assert 401 == reader.get("/p/demo").status_code


def test_the_secret_of_a_session_is_on_no_page(plain: Filled) -> None:
    reader = plain.reader()

    assert reader.cookie is not None
    assert not any(reader.cookie in reader.get(path).text for path in addresses(plain))


def entries(filled: Filled) -> int:
    with filled.world.kernel.store.read() as tx:
        return tx.count(LedgerEntry, *where(outcome="ok"))


def only_in(filled: Filled, project: str) -> str:
    """Return a session of somebody who has a role in one project alone."""
    filled.world.person("gast", Role.VIEWER, project="*")
    caller = filled.world.people["gast"]
    filled.world.instance(
        admin.GrantRole(actor="gast", role=Role.VIEWER, project=project), "role.grant"
    )
    session = session_of(filled.world, Caller(actor=ActorId(caller.actor)))
    filled.world.instance(
        admin.RevokeRole(actor="gast", role=Role.VIEWER, project="*"), "role.revoke"
    )
    with filled.world.kernel.store.read() as tx:
        assert tx.select(Actor, *where(name="gast"))
        assert tx.select(Token, *where(actor=caller.actor))
    return session
