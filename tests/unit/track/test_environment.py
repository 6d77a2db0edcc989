"""A run knows the code and the surroundings it ran in."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from everloop.core.digest import content_digest
from everloop.track.code import MAX_PATCH_BYTES, read_code, read_patch
from everloop.track.environment import capture_environment, find_lock, read_seeds


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


def test_the_patch_tells_every_change_without_the_secrets_in_it(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "project")
    assert b"" == read_patch(root)

    (root / "train.py").write_text('x = 2\npassword = "hunter2"\nkey: ghp_' + "a1" * 18 + "\n")
    (root / "new.py").write_text("y = 1\n")
    (root / ".env").write_text("TOKEN=hunter2\n")
    (root / "picture.bin").write_bytes(bytes(range(256)))
    patch = read_patch(root).decode()

    assert "-x = 1\n+x = 2\n" in patch
    assert '+password = "***"' in patch
    assert "diff --git a/new.py b/new.py" in patch
    assert "+y = 1" in patch
    assert ".env" in patch
    assert "picture.bin" in patch
    for secret in ("hunter2", "ghp_a1"):
        assert secret not in patch


def test_a_tracked_file_whose_name_speaks_of_secrets_is_left_out(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "project")
    (root / "credentials.json").write_text("{}")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "second")
    (root / "credentials.json").write_text('{"id": "open sesame"}')
    (root / "train.py").write_text("x = 3\n")

    patch = read_patch(root).decode()

    assert "credentials.json" in patch
    assert "sesame" not in patch
    assert "+x = 3" in patch


def test_the_patch_applies_where_nothing_was_masked(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "project")
    (root / "train.py").write_text("x = 2\n")
    (root / "new.py").write_text("y = 1\n")
    (tmp_path / "changes.patch").write_bytes(read_patch(root))
    git(root, "clean", "-fdq")
    git(root, "checkout", "-q", ".")

    git(root, "apply", str(tmp_path / "changes.patch"))

    assert ("x = 2\n", "y = 1\n") == (
        (root / "train.py").read_text(), (root / "new.py").read_text(),
    )  # fmt: skip


def test_a_patch_is_bounded_and_says_so(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "project")
    (root / "train.py").write_text("".join(f"x{line} = {line}\n" for line in range(120_000)))

    patch = read_patch(root)

    assert len(patch) < MAX_PATCH_BYTES + 200
    assert patch.endswith(b"left out\n")


def test_a_folder_of_many_new_files_is_told_and_not_read(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "project")
    for number in range(600):
        (root / f"row-{number:03}.csv").write_text("1\n")
    before = read_code(root)
    (root / "row-599.csv").write_text("2\n")
    same = read_code(root)
    (root / "row-599.csv").write_text("longer\n")
    grown = read_code(root)

    assert b"# everloop: 500 more new files are left out\n" in read_patch(root)
    assert before == same, "beyond the first files only names and sizes count"
    assert same != grown


def test_seeds_are_read_from_generators_without_drawing_from_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(initial_seed=lambda: 42))
    state, words = random.getstate(), np.random.get_state(legacy=False)
    try:
        np.random.seed(1234)
        random.seed(5)
        first, again = read_seeds(), read_seeds()
        np.random.rand()
        random.random()
        later = read_seeds()
    finally:
        random.setstate(state)
        np.random.set_state(words)

    assert ("1234", "42") == (first["numpy"], first["torch"])
    assert first == again
    assert first["random"] != later["random"]
    assert later["numpy"].startswith("state ")


def test_a_library_whose_state_cannot_be_read_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())

    assert "torch" not in read_seeds()
