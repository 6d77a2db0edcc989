"""From the gate to a sealed bundle: what serves a version was held against its framework first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm as lgb
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

import everloop.gate.verbs  # noqa: F401 -- declares gate.evaluate
from everloop.app.bundles import write_sealed
from everloop.core.canonical import canonical_json
from everloop.core.digest import content_digest
from everloop.core.errors import EverloopError, IntegrityError
from everloop.data.snapshot import commit_table
from everloop.gate.verbs import EvaluateGate
from everloop.kernel.safe_load import SAFE_FORMATS, LoadPolicy
from everloop.registry.adapters.pyfunc import save_function
from everloop.registry.client import register, upload_files
from everloop.registry.evidence import EVALUATOR, CheckResult, GateReport
from everloop.registry.model import ModelVersion
from everloop.registry.signature import Signature, infer_signature, name_outputs
from everloop.registry.verbs import RegisterModel
from everloop.serve.bundle import Bundle, open_bundle
from tests.kit import World, world
from tests.story.test_gate import work_in

RNG = np.random.default_rng(11)
NAMES = ["a", "b", "c"]


def rows(n: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).round(6)
    noise = rng.normal(size=n) / 4
    kind = (x[:, 0] + noise > 0).astype(int) + (x[:, 1] + noise > 0.5)
    return pa.table(
        {
            **{name: x[:, place] for place, name in enumerate(NAMES)},
            "amount": (x[:, 0] * 2 + x[:, 1] ** 2 + noise).round(6),
            "kind": pa.array(np.array(["low", "mid", "top"])[kind]),
            "code": kind,
        }
    )


TRAIN, HOLDOUT = rows(800, 1), rows(400, 2)
X = np.column_stack([TRAIN[name].to_numpy() for name in NAMES])
AMOUNT, KIND, CODE = (
    TRAIN[name].to_numpy(zero_copy_only=False) for name in ("amount", "kind", "code")
)
AMOUNTS = infer_signature(TRAIN, NAMES, "amount", "regression")


def of_classes(target: str, *names: str) -> Signature:
    return name_outputs(infer_signature(TRAIN, NAMES, target, "classification"), names)


def add(here: World, model: object, signature: Signature = AMOUNTS) -> ModelVersion:
    train = commit_table(here.owner, "train", TRAIN)
    kept = commit_table(here.owner, "kept", HOLDOUT)
    return register(here.owner, "m", model, signature=signature, dataset=train.id, holdout=kept.id)


def judge(here: World, model: object, signature: Signature = AMOUNTS) -> GateReport:
    version = add(here, model, signature)
    return here.server.perform("gate.evaluate", EvaluateGate(version=version.id), GateReport)


def check(report: GateReport, name: str = "answers_match") -> CheckResult:
    return next(one for one in report.checks if one.name == name)


def seal(here: World, report: GateReport, folder: Path) -> Bundle:
    with here.kernel.store.read() as tx:
        view = work_in(here, tx)
        return write_sealed(view, view.get(ModelVersion, report.version), folder)


def booster(**settings: object) -> lgb.Booster:
    truth = CODE if "num_class" in settings else AMOUNT
    told = {"verbose": -1, "num_threads": 1, "num_leaves": 15, "seed": 1, **settings}
    return lgb.train(told, lgb.Dataset(X, truth), 20)


def test_the_report_names_the_runtime_and_what_was_measured_of_it() -> None:
    report = judge(world(), booster())

    assert report.passed, [one.summary for one in report.checks if not one.passed]
    assert report.serving is not None
    assert ("lightgbm-c", "lightgbm") == (report.serving.runtime, report.serving.format)
    assert report.serving.runtime_version.startswith("lightgbm ")
    assert 0.0 == report.serving.max_difference == report.serving.tolerance
    assert 0 < report.serving.p50_us <= report.serving.p99_us
    assert report.serving.best_batch >= 1
    assert report.serving.rows >= 1_000
    assert "lightgbm.Booster.predict" in check(report).summary


def test_a_linear_model_is_served_by_onnxruntime_where_its_answers_match() -> None:
    pipeline = make_pipeline(StandardScaler(), Ridge()).fit(X, AMOUNT)
    report = judge(world(), pipeline)

    assert report.serving is not None
    assert ("onnxruntime", "onnx") == (report.serving.runtime, report.serving.format)
    assert set(report.serving.files) == {"model.onnx"}
    assert report.serving.max_difference < 1e-6


def test_a_forest_is_served_by_onnxruntime_where_it_takes_the_same_leaves() -> None:
    policy = LoadPolicy(trusted_types=("sklearn.tree._tree.Tree",))
    report = judge(world(policy=policy), RandomForestRegressor(4, random_state=1).fit(X, AMOUNT))

    assert report.serving is not None
    assert "onnxruntime" == report.serving.runtime
    assert report.serving.rows > 4_000  # its own splits are among them
    assert 0 < report.serving.max_difference <= 2e-6


def test_trees_whose_splits_can_not_be_asked_are_not_served_converted() -> None:
    policy = LoadPolicy(trusted_types=("sklearn.tree._tree.Tree",))
    behind = make_pipeline(StandardScaler(), DecisionTreeRegressor(max_depth=3)).fit(X, AMOUNT)
    report = judge(world(policy=policy), behind)

    assert report.serving is not None
    assert "skops" == report.serving.runtime
    assert "no row would show a wrong leaf" in report.serving.refused["onnxruntime in float32"]


def test_a_conversion_with_other_answers_is_refused_and_the_report_says_why() -> None:
    model = LogisticRegression().fit(X, KIND)
    report = judge(world(), model, of_classes("kind", "low", "mid", "top"))

    assert report.serving is not None
    assert "alone" in report.serving.refused["onnxruntime in float32"]  # NaN where float32 ends
    assert "float32" in str(check(report).values["refused"])


@pytest.mark.parametrize(
    ("model", "signature"),
    [
        (lambda: booster(objective="multiclass", num_class=3), of_classes("code", "0", "1", "2")),
        (lambda: LogisticRegression().fit(X, KIND), of_classes("kind", "low", "mid", "top")),
    ],
    ids=["lightgbm", "scikit-learn"],
)
def test_a_model_of_several_classes_passes_its_gate_and_answers_from_a_bundle(
    model: object, signature: Signature, tmp_path: Path
) -> None:
    assert callable(model)
    here, made = world(), model()
    report = judge(here, made, signature)

    assert report.passed, [one.summary for one in report.checks if not one.passed]
    assert "log_loss" == check(report, "beats_champion").values["loss"]
    bundle = seal(here, report, tmp_path / "b")
    loaded = open_bundle(tmp_path / "b", here.kernel.services.signers[EVALUATOR].public_key)
    expected = made.predict_proba(X[:9]) if hasattr(made, "predict_proba") else made.predict(X[:9])
    np.testing.assert_allclose(loaded.model(X[:9]), expected, rtol=1e-6)
    assert tuple(field.name for field in signature.outputs) == bundle.outputs
    assert 20 == len(bundle.golden)


def test_a_model_that_says_the_classes_at_random_is_refused() -> None:
    wrong = LogisticRegression().fit(X, np.random.default_rng(3).permutation(KIND))
    report = judge(world(), wrong, of_classes("kind", "low", "mid", "top"))

    assert {"beats_champion"} == {one.name for one in report.checks if not one.passed}


# --- sealed -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, World]:
    here, folder = world(), tmp_path_factory.mktemp("sealed") / "b"
    seal(here, judge(here, booster()), folder)
    return folder, here.kernel.services.signers[EVALUATOR].public_key, here


def copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_a_bundle_carries_what_a_server_needs(sealed: tuple[Path, bytes, World]) -> None:
    folder, key, _ = sealed
    loaded = open_bundle(folder, key)

    assert "lightgbm-c" == loaded.bundle.runtime
    assert loaded.bundle.verdict is not None
    assert 0.0 == loaded.bundle.verdict.max_difference
    assert loaded.background is not None
    assert (100, 3) == loaded.background.shape
    assert {"boundary.npy", "background.npy"} <= loaded.bundle.attachments.keys()
    loaded.close()


def test_what_a_contract_calls_personal_is_masked_in_the_bundle(tmp_path: Path) -> None:
    here = world()
    columns = {
        "b": {"personal": True, "min": -9},
        "c": {"dtype": "float"},
        "amount": {"personal": True},
    }
    here.configure({"datasets": {"train": {"contract": {"columns": columns}}}})

    bundle = seal(here, judge(here, booster()), tmp_path / "b")

    assert ("b",) == bundle.masked
    assert columns == json.loads((tmp_path / "b" / bundle.contract).read_bytes())["columns"]


@pytest.mark.parametrize("name", ["boundary.npy", "background.npy", "model.txt"])
def test_a_bundle_of_which_any_file_changed_is_refused(
    sealed: tuple[Path, bytes, World], tmp_path: Path, name: str
) -> None:
    folder = copy(sealed[0], tmp_path / "b")
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)

    with pytest.raises(IntegrityError) as refused:
        open_bundle(folder, sealed[1])

    assert "bundle.file_changed" == refused.value.code


def resign(folder: Path, here: World, **changed: object) -> None:
    """Seal it anew as it lies there, so that nothing but the answers can show what changed."""
    bundle = msgspec.json.decode((folder / "bundle.json").read_bytes(), type=Bundle)
    files = {name: content_digest((folder / name).read_bytes()) for name in bundle.files}
    others = {name: content_digest((folder / name).read_bytes()) for name in bundle.attachments}
    text = canonical_json(
        msgspec.structs.replace(bundle, files=files, attachments=others, **changed)
    )
    (folder / "bundle.json").write_bytes(text)
    signature = here.kernel.services.signers[EVALUATOR].sign(text)
    (folder / "bundle.sig").write_text(signature.hex())


def test_a_flipped_leaf_is_refused_though_signature_and_digests_hold(
    sealed: tuple[Path, bytes, World], tmp_path: Path
) -> None:
    folder = copy(sealed[0], tmp_path / "b")
    text = (folder / "model.txt").read_text()
    start = text.index("leaf_value=", text.index("Tree=7\n")) + len("leaf_value=")
    first = text[start : text.index(" ", start)]
    turned = first[1:] + "0" if first.startswith("-") else "-" + first[:-1]
    (folder / "model.txt").write_text(text[:start] + turned + text[start + len(first) :])
    resign(folder, sealed[2], golden=())

    with pytest.raises(IntegrityError) as refused:
        open_bundle(folder, sealed[1])

    assert "bundle.golden" == refused.value.code


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"runtime": "onnxruntime"}, "bundle.unreadable"),
        ({"runtime": "quantum"}, "model.runtime_unknown"),
        ({"outputs": ("0", "1")}, "bundle.unreadable"),
        ({"boundary": "background.npy"}, "bundle.unreadable"),
    ],
    ids=str,
)
def test_a_description_that_does_not_fit_its_model_is_refused(
    sealed: tuple[Path, bytes, World], tmp_path: Path, changed: dict[str, object], code: str
) -> None:
    folder = copy(sealed[0], tmp_path / "b")
    resign(folder, sealed[2], **changed)

    with pytest.raises(EverloopError) as refused:
        open_bundle(folder, sealed[1])

    assert code == refused.value.code


PROGRAM = """
import json, sys
from pathlib import Path
from everloop.serve.bundle import open_bundle
loaded = open_bundle(Path(sys.argv[1]), bytes.fromhex(sys.argv[2]))
import numpy as np
answers = loaded.model(np.zeros((2, 3))).tolist()
modules = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"answers": answers, "modules": modules}))
"""


@pytest.mark.parametrize("framework", ["lightgbm", "sklearn"])
def test_the_process_that_answers_imports_no_training_framework(
    framework: str, tmp_path: Path
) -> None:
    model = booster() if framework == "lightgbm" else Ridge().fit(X, AMOUNT)
    here = world()
    seal(here, judge(here, model), tmp_path / "b")
    key = here.kernel.services.signers[EVALUATOR].public_key.hex()

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "b"), key],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )

    assert 0 == done.returncode, done.stderr
    told = json.loads(done.stdout)
    heavy = {"lightgbm", "xgboost", "sklearn", "skops", "scipy", "torch", "pandas", "sqlalchemy",
             "starlette", "onnx", "skl2onnx"}  # fmt: skip
    assert [] == sorted(heavy & set(told["modules"]))
    np.testing.assert_allclose(told["answers"], model.predict(np.zeros((2, 3))), rtol=1e-6)


def twice(rows: Any) -> Any:
    import numpy as np

    return np.round(rows[:, 0] * 2 + rows[:, 1] ** 2, 9)


def test_a_waived_function_passes_its_gate_and_answers_from_a_bundle(tmp_path: Path) -> None:
    here = world(policy=LoadPolicy(formats=SAFE_FORMATS | {"pyfunc"}))
    train = commit_table(here.owner, "train", TRAIN)
    kept = commit_table(here.owner, "kept", HOLDOUT)
    ask = RegisterModel(
        name="m",
        files=upload_files(here.owner.blobs, save_function(twice, X)),
        format="pyfunc",
        signature=AMOUNTS,
        dataset=train.id,
        holdout=kept.id,
        waiver="A rule that no library has.",
    )
    version = here.owner.perform("model.register", ask, ModelVersion)
    report = here.server.perform("gate.evaluate", EvaluateGate(version=version.id), GateReport)

    assert report.passed, [one.summary for one in report.checks if not one.passed]
    seal(here, report, tmp_path / "b")
    loaded = open_bundle(tmp_path / "b", here.kernel.services.signers[EVALUATOR].public_key)
    np.testing.assert_array_equal(loaded.model(X[:5]), twice(X[:5]))
    loaded.close()
