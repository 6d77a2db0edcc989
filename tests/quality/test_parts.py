"""The parts that other tests stand on work, and a missing one is never passed over in silence."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import psycopg
import pytest

from tests.parts.browser import PHONE_DARK, OpenBrowser
from tests.parts.s3 import S3Server

ROOT = Path(__file__).resolve().parents[2]


def test_each_test_has_an_empty_database_of_a_real_postgres_15(postgres_url: str) -> None:
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        version = connection.execute("SHOW server_version_num").fetchone()
        tables = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone()

    assert version is not None
    assert int(version[0]) >= 150000
    assert (0,) == tables


def test_the_browser_shows_a_page_at_phone_width_in_the_dark(open_browser: OpenBrowser) -> None:
    driver = open_browser(PHONE_DARK)

    driver.get("data:text/html,<meta name=viewport content=width=device-width><p>hello")

    width = driver.execute_script("return window.innerWidth")
    dark = driver.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches")
    assert (390, True) == (width, dark)


def test_the_object_server_gives_empty_buckets(moto_s3: S3Server, s3_bucket: str) -> None:
    with urllib.request.urlopen(f"{moto_s3.endpoint}/{s3_bucket}") as answer:
        listing = answer.read()

    assert b"<KeyCount>0" in listing or b"<Contents>" not in listing


@pytest.mark.parametrize(("on_ci", "outcome"), [("true", "1 error"), ("", "1 skipped")])
def test_a_missing_part_skips_here_and_fails_on_ci(
    tmp_path: Path, on_ci: str, outcome: str
) -> None:
    (tmp_path / "test_needy.py").write_text(
        "import pytest\n@pytest.mark.needs_chromium\ndef test_needy():\n    pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "--rootdir", str(ROOT)]

    result = subprocess.run(
        [*command, "-c", str(ROOT / "pyproject.toml"), "-p", "no:xdist", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PATH": str(tmp_path), "CI": on_ci},
        capture_output=True,
        text=True,
        check=False,
    )

    assert outcome in result.stdout
