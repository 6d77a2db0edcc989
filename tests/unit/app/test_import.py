"""Importing the package is cheap, and its front door keeps what it promises."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import everloop

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("httpx", "click", "sqlalchemy", "pyarrow", "msgspec", "numpy", "starlette", "rich")


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT / "src",
    )
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = run(f"import sys, everloop; print([m for m in {HEAVY!r} if m in sys.modules])")

    assert "[]" == loaded


def test_the_help_of_the_command_line_loads_no_domain_and_no_database() -> None:
    program = (
        "import sys; from everloop.cli.main import main; main(['--help']);"
        "print([m for m in ('sqlalchemy', 'pyarrow', 'numpy', 'starlette', 'rich', 'httpx')"
        " if m in sys.modules])"
    )

    assert run(program).endswith("[]")


@pytest.mark.parametrize("name", everloop.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(everloop, name) is not None
    assert name in dir(everloop)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = everloop.nonsense


@pytest.mark.parametrize(
    "first", ["import everloop", "import everloop.pipeline.steps", "import everloop.app.training"]
)
def test_pipeline_is_the_decorator_whatever_was_imported_before(first: str) -> None:
    program = (
        f"{first}\n"
        "from everloop import pipeline\n"
        "import everloop.pipeline.steps as steps\n"
        "@pipeline\ndef one(): return 1\n"
        "@pipeline(name='b')\ndef two(): return 2\n"
        "print(one.name, two.name, isinstance(one, steps.Pipeline), one() + two())\n"
    )

    assert "one b True 3" == run(program)


def test_the_version_is_the_one_of_the_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert settings["project"]["version"] == everloop.__version__
