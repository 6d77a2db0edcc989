"""A sealed version is one file that answers as its training framework does, or nothing at all."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from everloop.cli.main import main
from everloop.core.errors import GateFailed, InvalidInput
from everloop.edge.queries import EdgeBundleView
from everloop.edge.verbs import BuildEdge
from everloop.registry.queries import ModelView, ShowModel
from tests.kit import World, world
from tests.unit.edge import sealed


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, EdgeBundleView, Path]:
    made = world()
    version = sealed.register(made, sealed.lightgbm_model())
    bundle = sealed.seal(made, version)
    return made, bundle, sealed.fetch(made, bundle, tmp_path_factory.mktemp("edge"))


def rewrite(path: Path, name: str, change: object) -> Path:
    """Copy a bundle with one of its files changed."""
    copy = path.with_name(f"changed-{path.name}")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for item in old.namelist():
            data = old.read(item)
            new.writestr(item, change(data) if item == name else data)  # type: ignore[operator]
    return copy


def test_a_bare_python_answers_as_the_training_framework(
    built: tuple[World, EdgeBundleView, Path],
) -> None:
    _, _, path = built

    (answer,) = sealed.answers(sealed.run(path, "predict", json.dumps(sealed.ROW)))

    row = [[5.0, 3200.0, 41.0, 0.25]]
    assert sealed.lightgbm_model().predict(row)[0] == answer["output"]
    assert built[1].version == answer["version"]


def test_ten_thousand_rows_at_the_splits_and_beside_them_are_the_same_to_the_last_bit(
    built: tuple[World, EdgeBundleView, Path],
) -> None:
    parity = built[1].bundle.parity

    assert (10_000, 0, 0.0) == (parity.rows, parity.different, parity.max_difference)


@pytest.mark.parametrize("objective", ["reg:squarederror", "binary:logistic"])
def test_xgboost_differs_by_no_more_than_two_steps_of_its_float32(objective: str) -> None:
    made = world()
    task = "classification" if objective == "binary:logistic" else "regression"
    version = sealed.register(made, sealed.xgboost_model(objective), task=task)  # type: ignore[arg-type]

    parity = sealed.seal(made, version).bundle.parity

    assert 10_000 == parity.rows
    assert parity.different <= (0 if objective == "reg:squarederror" else 20)
    assert parity.max_difference <= 2**-23


def test_the_same_version_gives_the_same_file(built: tuple[World, EdgeBundleView, Path]) -> None:
    made, bundle, _ = built

    again = made.owner.perform(
        "edge.build", BuildEdge(version=bundle.bundle.version), EdgeBundleView
    )

    assert bundle == again


def test_a_version_without_its_gate_is_not_sealed(
    built: tuple[World, EdgeBundleView, Path],
) -> None:
    made = world()
    version = sealed.register(made, sealed.lightgbm_model(), waived=False)

    with pytest.raises(GateFailed) as refused:
        sealed.seal(made, version)
    assert "gate.missing" == refused.value.code


def test_a_mask_of_no_input_is_refused(built: tuple[World, EdgeBundleView, Path]) -> None:
    made, bundle, _ = built
    version = made.owner.perform("model.show", ShowModel(ref=bundle.bundle.version), ModelView)

    with pytest.raises(InvalidInput) as refused:
        sealed.seal(made, version.version, mask=("incme",))
    assert "edge.mask_unknown" == refused.value.code


def test_a_flipped_leaf_is_refused(built: tuple[World, EdgeBundleView, Path]) -> None:
    def flip(data: bytes) -> bytes:
        told = json.loads(data)
        told["trees"][0]["leaf"][0] += 1.0
        return json.dumps(told).encode()

    done = sealed.run(rewrite(built[2], "bundle/model.json", flip), "predict", "{}")

    assert 1 == done.returncode
    assert "edge.file_changed" in done.stderr


def test_a_changed_manifest_is_refused(built: tuple[World, EdgeBundleView, Path]) -> None:
    changed = rewrite(
        built[2], "bundle/manifest.json", lambda data: data.replace(b'"credit"', b'"kredit"')
    )

    done = sealed.run(changed, "verify")

    assert 1 == done.returncode
    assert "edge.signature" in done.stderr


def test_a_bundle_of_another_key_is_refused(built: tuple[World, EdgeBundleView, Path]) -> None:
    _, bundle, path = built

    ours = sealed.run(path, "verify", EVERLOOP_EDGE_KEY=bundle.bundle.key)
    theirs = sealed.run(path, "verify", EVERLOOP_EDGE_KEY="ab" * 32)

    assert [True] == [told["key_pinned"] for told in sealed.answers(ours)]
    assert (1, True) == (theirs.returncode, "edge.signature" in theirs.stderr)


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ({"income": 1.0, "age": 3}, "city"),
        ({**sealed.ROW, "age": 3.5}, "age"),
        ({**sealed.ROW, "agge": 3}, "agge"),
        ({**sealed.ROW, "income": "much"}, "income"),
        ({**sealed.ROW, "income": True}, "income"),
        ([1, 2], "$"),
    ],
)
def test_a_row_that_does_not_fit_names_its_field(
    built: tuple[World, EdgeBundleView, Path], row: object, place: str
) -> None:
    done = sealed.run(built[2], "predict", json.dumps(row))

    assert (1, "") == (done.returncode, done.stdout)
    assert "edge.row_invalid" in done.stderr
    assert repr(place) in done.stderr


def test_a_name_that_training_never_saw_counts_as_missing(
    built: tuple[World, EdgeBundleView, Path],
) -> None:
    rows = [{**sealed.ROW, "city": "Atlantis"}, {**sealed.ROW, "debt": None}]

    found = sealed.answers(sealed.run(built[2], "predict", json.dumps(rows)))

    nan = float("nan")
    expected = sealed.lightgbm_model().predict([[nan, 3200.0, 41.0, 0.25], [5, 3200.0, 41.0, nan]])
    assert expected.tolist() == [answer["output"] for answer in found]


def test_an_onnx_model_answers_by_onnxruntime_and_says_when_it_is_missing(tmp_path: Path) -> None:
    made = world()
    bundle = sealed.seal(made, sealed.register(made, sealed.onnx_model()))
    path = sealed.fetch(made, bundle, tmp_path)

    bare = sealed.run(path, "verify")
    whole = subprocess.run(
        [sys.executable, str(path), "predict", json.dumps(sealed.ROW)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert (1, True) == (bare.returncode, "edge.runtime_missing" in bare.stderr)
    row = np.asarray([5.0, 3200.0, 41.0, 0.25], dtype=np.float32)
    expected = row @ np.asarray([1.0, 0.5, -2.0, 3.0], dtype=np.float32)
    assert expected == pytest.approx(json.loads(whole.stdout)["output"], rel=1e-6)
    assert 10_000 == bundle.bundle.parity.rows


def test_a_bundle_is_a_module_too(built: tuple[World, EdgeBundleView, Path]) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(built[2])!r}); import everloop_edge; "
        f"print(everloop_edge.predict({sealed.ROW!r}))"
    )
    done = subprocess.run([*sealed.BARE, "-c", program], capture_output=True, text=True, check=True)

    assert sealed.lightgbm_model().predict([[5.0, 3200.0, 41.0, 0.25]])[0] == float(done.stdout)


def test_inputs_that_the_project_masks_are_masked_on_devices() -> None:
    made = world()
    made.configure({"models": {"credit": {"log": {"masked": ["income"]}}}})
    version = sealed.register(made, sealed.lightgbm_model(rounds=2))

    bundle = sealed.seal(made, version, mask=("age",)).bundle

    assert ("age", "income") == bundle.masked


def test_a_file_whose_code_is_damaged_refuses_itself(
    built: tuple[World, EdgeBundleView, Path], tmp_path: Path
) -> None:
    whole = built[2].read_bytes()
    with zipfile.ZipFile(built[2]) as archive:
        places = [
            (info.header_offset + 30 + len(info.filename), info.compress_size)
            for info in archive.infolist()
            if info.filename.startswith("everloop_edge/")
        ]
    path = tmp_path / "damaged.pyz"

    for number, (start, size) in enumerate(places):
        spoiled = bytearray(whole)
        spoiled[start + size * number // len(places)] ^= 0x41
        path.write_bytes(spoiled)
        done = sealed.run(path, "verify")
        assert (1, "") == (done.returncode, done.stdout)
        assert "[edge.unreadable]" in done.stderr
        assert "Traceback" not in done.stderr


def test_help_calls_the_file_by_its_name(built: tuple[World, EdgeBundleView, Path]) -> None:
    assert f"usage: {built[2].name} " in sealed.run(built[2], "--help").stdout


def test_a_file_that_was_cut_says_so_whoever_opens_it(
    built: tuple[World, EdgeBundleView, Path], tmp_path: Path
) -> None:
    whole = built[2].read_bytes()
    path = tmp_path / "cut.pyz"

    for size in (len(whole) - 1, len(whole) // 2, 200):
        path.write_bytes(whole[:size])
        alone = sealed.run(path, "verify")
        by_a_whole_one = sealed.run(built[2], "verify", "--bundle", str(path))

        assert (1, "") == (alone.returncode, alone.stdout)
        assert "edge.unreadable--this-file-is-cut-short--fetch-it-again" in alone.stderr
        assert (1, "") == (by_a_whole_one.returncode, by_a_whole_one.stdout)
        assert "cut.pyz is no edge bundle" in by_a_whole_one.stderr
        assert "[edge.unreadable] Fetch it again" in by_a_whole_one.stderr


def test_the_command_line_verifies_the_file_of_a_device(
    built: tuple[World, EdgeBundleView, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, bundle, path = built
    cut = tmp_path / "cut.pyz"
    cut.write_bytes(path.read_bytes()[:-1])

    held = main(["models", "verify-bundle", str(path), "--key", bundle.bundle.key])
    told = capsys.readouterr().out
    refused = [
        main(["models", "verify-bundle", str(cut)]),
        main(["models", "verify-bundle", str(path), "--key", "00" * 32]),
    ]

    assert 0 == held
    assert bundle.bundle.digest.partition(":")[2] in told
    assert 0 not in refused
    said = capsys.readouterr().err
    assert "cut.pyz is no edge bundle" in said
    assert "is not signed by the expected key" in said
