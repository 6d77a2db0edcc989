"""A run knows the code and the surroundings it ran in."""

from __future__ import annotations

import subprocess
from pathlib import Path

from everloop.core.digest import content_digest
from everloop.track.code import read_code
from everloop.track.environment import capture_environment, find_lock


def git(root: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
        cwd=root, check=True, capture_output=True,
    )  # fmt: skip


def make_repository(root: Path) -> Path:
    root.mkdir()
    git(root, "init", "-q", "-b", "trunk")
    (root / "train.py").write_text("x = 1\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return root


def test_the_state_of_the_code_tells_commit_and_every_change(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "project")
    clean = read_code(root)

    (root / "train.py").write_text("x = 2\n")
    edited = read_code(root)
    (root / "new.py").write_text("y = 1\n")
    grown = read_code(root)
    (root / "new.py").write_text("y = 2\n")
    changed = read_code(root)

    assert clean is not None
    assert (40, "trunk", None) == (len(clean.commit), clean.branch, clean.patch)
    patches = [code.patch for code in (edited, grown, changed) if code]
    assert 3 == len(set(patches))
    assert None not in patches


def test_outside_a_repository_there_is_no_code_state(tmp_path: Path) -> None:
    assert read_code(tmp_path) is None
    assert read_code(tmp_path / "missing") is None


def test_the_nearest_lock_file_counts_up_to_the_top_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text("outer")
    root = make_repository(tmp_path / "project")
    (root / "deep").mkdir()

    assert find_lock(root / "deep") is None
    (root / "requirements.txt").write_text("numpy")

    found = find_lock(root / "deep")
    assert found is not None
    assert ("requirements.txt", content_digest(b"numpy")) == (found.name, found.digest)


def test_only_variables_that_change_numbers_are_kept_and_secrets_are_masked(tmp_path: Path) -> None:
    environ = {
        "TZ": "UTC", "OMP_NUM_THREADS": "1", "MY_SEED": "7", "HOME": "/x", "AWS_SECRET": "s",
        "DB_URL": "postgres://u:pw@h/db", "API_TOKEN": "t",
    }  # fmt: skip

    made = capture_environment(
        tmp_path,
        command=["train.py", "--api-key", "abc"],
        environ=environ,
        names=("DB_URL", "API_TOKEN"),
    )

    assert {
        "TZ": "UTC", "OMP_NUM_THREADS": "1", "MY_SEED": "7", "DB_URL": "postgres://u:***@h/db",
        "API_TOKEN": "***",
    } == made.variables  # fmt: skip
    assert ("train.py", "--api-key", "***") == made.command
    assert any(package.startswith("numpy==") for package in made.packages)
    assert made.cpus >= 1
