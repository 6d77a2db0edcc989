"""Attacks through what runs log: names, params, tags, paths and bytes of files, filters, views."""

from __future__ import annotations

import io
import resource

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everloop.core.ids import Id
from everloop.kernel.authz import Role
from tests.attack.test_pages import EVIL, Tags
from tests.unit.ui.filled import Reader, app_of, session_of
from tests.unit.ui.tracked import FILES, Tracked

NAMES = {
    "x.html": b"<script>alert(1)</script>",
    "x.HTM": b"<script>alert(1)</script>",
    "x.xhtml": b"<script>alert(1)</script>",
    "x.svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "x.xml": b"<?xml version='1.0'?><x/>",
    "x.js": b"alert(1)",
    "x.css": b"body{}",
    "x.png": b"<script>alert(1)</script>",
    "x.pdf": b"%PDF-1.4",
    "x.txt": b"<script>alert(1)</script>",
    "x": b"<script>alert(1)</script>",
    "x.json": b'{"a":"<script>alert(1)</script>"}',
    "x.csv": b"a,b\n<script>alert(1)</script>,2\n",
    "x.md": b"<script>alert(1)</script>",
}


@pytest.fixture(scope="module")
def evil() -> Tracked:
    found = Tracked(count=2, text=EVIL)
    found.keep(found.live, NAMES | {f"{EVIL[:20]}/{EVIL}.txt".replace("/", "_"): b"x"})
    return found


@pytest.fixture(scope="module")
def reader(evil: Tracked) -> Reader:
    return evil.reader()


def at(run: Id, part: str) -> str:
    return f"/p/demo/runs/{run}/{part}"


def test_nothing_that_a_run_logs_becomes_markup(evil: Tracked, reader: Reader) -> None:
    run, seen = evil.runs[0], 0
    both = f"run={run}&run={evil.runs[1]}"
    pages = [
        "/p/demo/runs?col=tags.note&col=params.model",
        "/p/demo/runs?show=parallel",
        f"/p/demo/compare?{both}",
        f"/p/demo/runs/{run}",
        at(run, "files"),
        at(evil.live, "files"),
        *(at(run, f"files?path={path}") for path in FILES),
        *(at(evil.live, f"files?path={path}") for path in NAMES),
    ]
    for path in pages:
        answer = reader.get(path)
        tags = Tags(answer.text).found
        assert 200 == answer.status_code, path
        assert "<script>alert(1)" not in answer.text, path
        assert "<script>parent" not in answer.text, path
        assert all("src" in names for tag, names in tags if tag == "script"), path
        assert not {n for _, ns in tags for n in ns if n == "style" or n.startswith("on")}, path
        seen += "&lt;script&gt;" in answer.text
    assert seen >= 6


def test_bytes_of_a_run_never_get_an_origin(evil: Tracked, reader: Reader) -> None:
    for path in NAMES:
        for more in ("", "&scripts=yes", "&download=yes"):
            answer = reader.get(at(evil.live, f"file?path={path}{more}"))
            policy = answer.headers["content-security-policy"]
            assert 200 == answer.status_code
            assert policy.startswith(("sandbox;", "sandbox allow-scripts;")), path
            assert "allow-same-origin" not in policy
            assert "default-src 'none'" in policy
            assert "connect-src" not in policy
            assert "nosniff" == answer.headers["x-content-type-options"]
            assert "SAMEORIGIN" == answer.headers["x-frame-options"]
            kind = answer.headers["content-type"]
            inline = answer.headers["content-disposition"].startswith("inline")
            assert inline == (kind != "application/octet-stream"), path
            if not path.lower().endswith((".html", ".htm")) or not more.startswith("&scripts"):
                assert "allow-scripts" not in policy, path


@pytest.mark.parametrize("path", ["x.js", "x.css", "x.xml", "x.xhtml", "x.txt", "x", "x.pdf"])
def test_what_a_page_could_load_as_its_own_is_a_download(
    evil: Tracked, reader: Reader, path: str
) -> None:
    answer = reader.get(at(evil.live, f"file?path={path}"))

    assert "application/octet-stream" == answer.headers["content-type"]
    assert answer.headers["content-disposition"].startswith("attachment")


def test_a_frame_of_a_run_is_sandboxed_and_gets_no_origin(evil: Tracked, reader: Reader) -> None:
    for more in ("", "&scripts=yes"):
        text = reader.get(at(evil.runs[0], f"files?path=report.html{more}")).text
        assert "<iframe" in text
        assert "allow-same-origin" not in text
        assert ("allow-scripts" in text) == bool(more)


def test_the_name_of_a_file_breaks_no_header(reader: Reader, evil: Tracked) -> None:
    names = ['a"; filename="evil.exe', "ä\u202egpj.exe", "semi;colon.html", "percent%0d%0aX y"]
    for name in names:
        evil.keep(evil.live, {name: b"x"})
        answer = reader.get("/p/demo/runs/" + evil.live + "/file?path=" + quoted(name))
        header = answer.headers["content-disposition"]
        assert 200 == answer.status_code, name
        assert header.isascii()
        assert 2 == header.count('"')
        assert "x" not in answer.headers


def quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def test_files_of_another_project_are_not_sent(evil: Tracked) -> None:
    evil.world.project("other")
    answer = evil.reader().get(f"/p/other/runs/{evil.runs[0]}/file?path=report.html")

    assert 404 == answer.status_code


def test_a_path_leads_to_a_logged_file_or_nowhere(evil: Tracked, reader: Reader) -> None:
    for path in ("../../etc/passwd", "%2e%2e%2fx", "/etc/passwd", "plots", "x.png%00.html", ""):
        answer = reader.get(at(evil.runs[0], f"file?path={path}"))
        assert answer.status_code in {400, 404}, path


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("cut.parquet", FILES["tables/hours.parquet"][:400]),
        ("fake.parquet", b"PAR1" + b"\xff" * 200 + b"PAR1"),
        ("empty.parquet", b""),
        ("empty.csv", b""),
        ("binary.csv", bytes(range(256)) * 40),
        ("long.csv", b'a\n"' + b"x" * 400_000),
        ("deep.json", b"[" * 5_000 + b"]" * 5_000),
        ("split.json", b'{"columns":[],"data":[[]]}'),
        ("uneven.json", b'{"columns":["a"],"data":[[],[1,2,3]]}'),
        ("bad.png", b"no picture"),
        ("half.txt", "ä".encode()[:1]),
    ],
)
def test_a_broken_file_is_told_and_breaks_nothing(
    evil: Tracked, reader: Reader, path: str, data: bytes
) -> None:
    evil.keep(evil.live, {path: data})

    answer = reader.get(at(evil.live, f"files?path={path}"))

    assert 200 == answer.status_code
    assert "Traceback" not in answer.text


def test_a_table_that_swells_is_opened_a_page_at_a_time(evil: Tracked, reader: Reader) -> None:
    """Half a megabyte of file that is 100 GB of texts when it is decoded whole."""
    texts = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(1_000_000, np.int32)), pa.array(["y" * 100_000])
    )
    file = io.BytesIO()
    pq.write_table(pa.table({"x": texts}), file, compression="zstd", store_schema=False)
    evil.keep(evil.live, {"bomb.parquet": file.getvalue()})
    assert len(file.getvalue()) < 1_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    answer = reader.get(at(evil.live, "files?path=bomb.parquet"))

    assert 200 == answer.status_code
    assert "1,000,000 rows" in answer.text
    assert len(answer.text) < 200_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_lists_that_swell_are_not_opened(evil: Tracked, reader: Reader) -> None:
    lists = pa.ListArray.from_arrays([0, 6_000_000], pa.array(np.zeros(6_000_000, np.int8)))
    file = io.BytesIO()
    pq.write_table(pa.table({"x": lists}), file, compression="zstd")
    evil.keep(evil.live, {"lists.parquet": file.getvalue()})

    assert "too long" in reader.get(at(evil.live, "files?path=lists.parquet")).text


def test_a_view_holds_an_address_and_never_another_place(evil: Tracked) -> None:
    reader = evil.reader()
    csrf = reader.csrf("/p/demo/runs")
    for query in ("//evil.example", "x=1&javascript:alert(1)", "filter=%22%3E%3Cscript%3E", "#x"):
        answer = reader.post(
            "/p/demo/runs/views", {"csrf": csrf, "name": f"v {query}"[:90], "query": query}
        )
        assert 303 == answer.status_code
        assert answer.headers["location"].startswith("/p/demo/runs?")

    text = reader.get("/p/demo/runs").text
    assert 'href="//' not in text
    assert 'href="javascript' not in text
    assert "<script>alert" not in text


def test_a_viewer_sees_files_and_edits_nothing(evil: Tracked) -> None:
    evil.world.person("vera", Role.VIEWER, project="*")
    vera = Reader(app_of(evil.world.kernel), session_of(evil.world, evil.world.people["vera"]))
    csrf = vera.csrf("/p/demo")
    run = evil.runs[0]

    assert 200 == vera.get(at(run, "file?path=plots/demand.png")).status_code
    for part, form in (
        ("note", {"note": "x"}),
        ("tag", {"key": "a", "value": "b"}),
        ("untag", {"key": "team"}),
        ("name", {"name": "x"}),
        ("delete", {}),
    ):
        assert 403 == vera.post(at(run, part), form | {"csrf": csrf}).status_code, part
    for part in ("views", "delete"):
        form = {"csrf": csrf, "name": "x", "query": "", "run": run}
        assert 403 == vera.post(f"/p/demo/runs/{part}", form).status_code, part
