"""A model goes from data to its gate: good ones pass, broken ones and cheats do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lightgbm as lgb
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from pyarrow.csv import read_csv
from sklearn.linear_model import LogisticRegression

from everloop.core.digest import Digest
from everloop.core.errors import (
    Conflict,
    Denied,
    GateFailed,
    IntegrityError,
    InvalidInput,
    NotFound,
)
from everloop.core.ids import ProjectId
from everloop.core.ports import Transaction, where
from everloop.core.records import declared_kinds
from everloop.data.model import DatasetVersion
from everloop.data.snapshot import commit_table
from everloop.gate.golden import GoldenRow
from everloop.gate.queries import GateList, GateView, ListGates, ShowGate
from everloop.gate.verbs import ApproveArtifact, EvaluateGate, WaiveGate
from everloop.kernel.authz import Project, Role
from everloop.kernel.bootstrap import OWNER, local_caller
from everloop.kernel.performer import LocalPerformer
from everloop.kernel.unit_of_work import Desk, Work
from everloop.kernel.verbs import find_verb
from everloop.registry.aliases import move_alias
from everloop.registry.client import register
from everloop.registry.evidence import (
    Approval,
    Evidence,
    GateReport,
    Statement,
    Waiver,
    require_pass,
    sign_statement,
)
from everloop.registry.model import Model, ModelVersion
from everloop.registry.signature import infer_signature
from everloop.storage.sqlite import SqliteMetadataStore
from tests.kit import PROJECT, World, world

DAYS, HOURS = 60, 24
INPUTS = ["hour", "temperature", "workday"]


def rows(seed: int, days: int = DAYS) -> pa.Table:
    """Hourly demand of made-up days: two kinds of customers whose sum is the target."""
    rng = np.random.default_rng(seed)
    day, hour = np.repeat(np.arange(days), HOURS), np.tile(np.arange(HOURS), days)
    temperature = np.repeat(rng.normal(15, 6, days), HOURS) + 5 * np.sin(hour / 24 * 2 * np.pi)
    workday = (day % 7 < 5).astype(int)
    usual = 60 + 40 * np.sin((hour - 6) / 24 * 2 * np.pi) + 3 * temperature
    registered = usual * (0.7 + 0.3 * workday) * rng.lognormal(0, 0.15, day.size)
    casual = 2 * np.maximum(temperature, 0) * (1.4 - workday) * rng.lognormal(0, 0.4, day.size)
    return pa.table(
        {
            "day": day + 1000 * seed,
            "hour": hour,
            "temperature": temperature.round(2),
            "workday": workday,
            "registered": registered.round(),
            "casual": casual.round(),
            "count": registered.round() + casual.round(),
        }
    )


TRAIN, HOLDOUT = rows(1), rows(2, days=30)


def fit(
    table: pa.Table, *, inputs: list[str], trees: int = 60, labels: np.ndarray | None = None
) -> lgb.Booster:
    x = np.column_stack([table[name].to_numpy() for name in inputs]).astype(float)
    y = table["count"].to_numpy() if labels is None else labels
    settings = {
        "verbose": -1,
        "num_threads": 1,
        "num_leaves": 15,
        "objective": "regression",
        "seed": 1,
        "deterministic": True,
    }
    return lgb.train(settings, lgb.Dataset(x, y), trees)


@dataclass
class Shop:
    """A world with the training data and the holdout committed."""

    here: World
    train: DatasetVersion
    holdout: DatasetVersion

    @property
    def owner(self) -> LocalPerformer:
        return self.here.owner

    def add(
        self,
        model: lgb.Booster,
        *,
        inputs: list[str] = INPUTS,
        by: LocalPerformer | None = None,
        holdout: bool = True,
    ) -> ModelVersion:
        return register(
            by or self.owner,
            "bike",
            model,
            signature=infer_signature(TRAIN, inputs, "count", "regression"),
            dataset=self.train.id,
            holdout=self.holdout.id if holdout else None,
            examples=HOLDOUT,
        )

    def judge(self, version: ModelVersion, champion: str | None = None) -> GateReport:
        ask = EvaluateGate(version=version.id, champion=champion)
        return self.owner.perform("gate.evaluate", ask, GateReport)

    def promote(self, version: ModelVersion) -> None:
        with self.here.kernel.store.write() as tx:
            work = work_in(self.here, tx)
            model = work.get(Model, version.model)
            move_alias(work, model, "production", version, "test")

    def admitted(self, version: ModelVersion) -> Evidence:
        return admitted(self.here, version)


def work_in(here: World, tx: Transaction) -> Work:
    """A unit of work of the owner, for what only the release package does through a verb."""
    return Work(
        tx,
        local_caller(here.kernel, OWNER),
        ProjectId(tx.select(Project, *where(name=PROJECT))[0].id),
        here.kernel.services,
        now=here.clock.now(),
        request="test",
        reason=None,
    )


def admitted(here: World, version: ModelVersion) -> Evidence:
    with here.kernel.store.read() as tx:
        return require_pass(work_in(here, tx), version)


@pytest.fixture
def shop() -> Shop:
    return shop_in(world())


@pytest.fixture(params=["memory", "sqlite"])
def any_shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """A shop on each store: what is signed must survive being written and read."""
    if request.param == "memory":
        yield shop_in(world())
    else:
        store = SqliteMetadataStore(tmp_path / "everloop.db", declared_kinds())
        yield shop_in(world(store))
        store.close()


def shop_in(here: World) -> Shop:
    here.configure({"models": {"bike": {"gate": {"block": "day"}}}})
    return Shop(
        here, commit_table(here.owner, "train", TRAIN), commit_table(here.owner, "kept", HOLDOUT)
    )


def failed(report: GateReport) -> set[str]:
    return {check.name for check in report.checks if not check.passed}


GOOD = fit(TRAIN, inputs=INPUTS)


def test_a_sound_model_passes_every_check(shop: Shop) -> None:
    report = shop.judge(shop.add(GOOD))

    assert failed(report) == set(), [check.summary for check in report.checks]
    assert report.passed
    assert [check.name for check in report.checks] == [
        "schema", "leakage", "beats_champion", "answers_match", "latency", "finite_output",
    ]  # fmt: skip


def test_the_report_admits_the_version_and_its_golden_rows_are_its_answers(any_shop: Shop) -> None:
    version = any_shop.add(GOOD)
    report = any_shop.judge(version)

    assert any_shop.admitted(version) == report
    assert report.golden is not None
    golden = msgspec.json.decode(any_shop.here.blobs.get(report.golden), type=tuple[GoldenRow, ...])
    x = np.array([[row.inputs[name] for name in INPUTS] for row in golden], dtype=float)
    np.testing.assert_array_equal(GOOD.predict(x), [row.expected for row in golden])
    assert len(golden) == 20


def test_a_model_of_shuffled_labels_is_refused(shop: Shop) -> None:
    labels = np.random.default_rng(5).permutation(TRAIN["count"].to_numpy())
    report = shop.judge(shop.add(fit(TRAIN, inputs=INPUTS, labels=labels)))

    assert failed(report) == {"beats_champion"}


def test_parts_that_add_up_to_the_answer_are_found(shop: Shop) -> None:
    inputs = [*INPUTS, "casual", "registered"]
    report = shop.judge(shop.add(fit(TRAIN, inputs=inputs), inputs=inputs))

    assert failed(report) == {"leakage"}
    (check,) = (check for check in report.checks if check.name == "leakage")
    assert check.values["leaking"] in {"casual, registered", "registered, casual"}


def test_a_holdout_that_was_trained_on_is_found(shop: Shop) -> None:
    both = pa.concat_tables([TRAIN, HOLDOUT])
    train = commit_table(shop.owner, "train", both)
    cheat = Shop(shop.here, train, shop.holdout)
    report = cheat.judge(cheat.add(fit(both, inputs=INPUTS, trees=200)))

    assert failed(report) == {"leakage"}


def test_a_challenger_no_better_than_the_champion_is_refused(shop: Shop) -> None:
    champion = shop.add(GOOD)
    shop.promote(champion)
    report = shop.judge(shop.add(fit(TRAIN, inputs=INPUTS, trees=59)))

    assert failed(report) == {"beats_champion"}
    assert report.champion == champion.id


def test_a_model_of_shuffled_labels_is_refused_also_beside_a_worse_champion(shop: Shop) -> None:
    shop.promote(shop.add(fit(TRAIN, inputs=INPUTS, labels=10 * TRAIN["count"].to_numpy())))
    labels = np.random.default_rng(5).permutation(TRAIN["count"].to_numpy())
    report = shop.judge(shop.add(fit(TRAIN, inputs=INPUTS, labels=labels)))

    assert failed(report) == {"beats_constant"}


def test_a_better_challenger_passes_against_the_champion(shop: Shop) -> None:
    shop.promote(shop.add(fit(TRAIN, inputs=INPUTS, trees=8)))

    assert shop.judge(shop.add(GOOD)).passed


def test_a_weak_rival_of_ones_own_choice_does_not_help(shop: Shop) -> None:
    weak = shop.add(fit(TRAIN, inputs=INPUTS, trees=3))
    shop.promote(shop.add(GOOD))
    report = shop.judge(shop.add(fit(TRAIN, inputs=INPUTS, trees=20)), champion=weak.id)

    assert "beats_champion" in failed(report)
    assert f"beats_{weak.version}" in {check.name for check in report.checks}


def test_without_a_holdout_nothing_can_be_shown_and_nothing_passes(shop: Shop) -> None:
    report = shop.judge(shop.add(GOOD, holdout=False))

    assert failed(report) == {check.name for check in report.checks}
    assert all("could not be run" in check.summary for check in report.checks)


def test_a_model_that_answers_nan_is_refused(shop: Shop) -> None:
    text = GOOD.model_to_string()
    first = text.index("leaf_value=") + len("leaf_value=")
    broken = text[:first] + "nan" + text[text.index(" ", first) :]
    sizes = text[text.index("tree_sizes=") :].partition("\n")[0]
    fewer = len(text) - len(broken)
    head, _, rest = sizes.removeprefix("tree_sizes=").partition(" ")
    told = f"tree_sizes={int(head) - fewer} {rest}"
    report = shop.judge(shop.add(lgb.Booster(model_str=broken.replace(sizes, told))))

    assert {"finite_output", "beats_champion"} <= failed(report)


def test_a_report_for_one_artifact_never_admits_another(any_shop: Shop) -> None:
    good, other = any_shop.add(GOOD), any_shop.add(fit(TRAIN, inputs=INPUTS, trees=2))
    report = any_shop.judge(good)

    with pytest.raises(GateFailed) as refused:
        any_shop.admitted(other)
    assert refused.value.code == "gate.missing"

    moved = msgspec.structs.replace(report, id=other.id, version=other.id, artifact=other.artifact)
    with any_shop.here.kernel.store.write() as tx:
        tx.insert(moved)
    with pytest.raises(IntegrityError):
        any_shop.admitted(other)


@pytest.mark.parametrize(
    "change",
    [
        {"passed": True},
        {"passed": True, "checks": ()},
        {"signature": "00" * 64},
        {"signature": "not hex"},
        {"statement": "{}"},
        {"artifact": Digest("blake3:" + "0" * 64)},
        {"golden": None},
    ],
)
def test_a_report_written_past_the_evaluator_is_worth_nothing(
    shop: Shop, change: dict[str, object]
) -> None:
    labels = np.random.default_rng(5).permutation(TRAIN["count"].to_numpy())
    version = shop.add(fit(TRAIN, inputs=INPUTS, labels=labels, trees=3))
    report = shop.judge(version)
    with shop.here.kernel.store.write() as tx:
        tx.replace(msgspec.structs.replace(report, **change))

    with pytest.raises(IntegrityError) as refused:
        shop.admitted(version)

    assert refused.value.code == "gate.report_forged"
    shown = shop.owner.perform("gate.show", ShowGate(ref=version.id), GateView)
    assert not shown.verified


def test_an_old_pass_copied_over_a_new_refusal_is_worth_nothing(shop: Shop) -> None:
    version = shop.add(GOOD)
    passed = shop.judge(version)
    shop.here.clock.push(hours=1)
    copied = msgspec.structs.replace(passed, id=shop.here.kernel.services.ids.new())
    with shop.here.kernel.store.write() as tx:
        tx.insert(copied)

    with pytest.raises(IntegrityError):
        shop.admitted(version)


def refused_version(shop: Shop, by: LocalPerformer | None = None) -> ModelVersion:
    labels = np.random.default_rng(5).permutation(TRAIN["count"].to_numpy())
    version = shop.add(fit(TRAIN, inputs=INPUTS, labels=labels, trees=3), by=by)
    shop.judge(version)
    return version


def test_a_refusal_names_its_failed_checks(any_shop: Shop) -> None:
    version = refused_version(any_shop)

    with pytest.raises(GateFailed) as refused:
        any_shop.admitted(version)

    assert refused.value.context["failed"] == ["beats_champion"]


def test_a_waiver_admits_one_artifact_until_its_next_report(any_shop: Shop) -> None:
    version = refused_version(any_shop)
    ask = WaiveGate(version=version.id, why="Needed to show that the canary works.")
    waiver = any_shop.owner.perform("gate.waive", ask, Waiver)

    assert any_shop.admitted(version) == waiver
    assert waiver.own_work

    any_shop.here.clock.push(hours=1)
    any_shop.judge(version)
    with pytest.raises(GateFailed):
        any_shop.admitted(version)


def test_a_version_waived_before_its_gate_is_shown_without_a_report(shop: Shop) -> None:
    version = shop.add(GOOD)
    with pytest.raises(NotFound):
        shop.owner.perform("gate.show", ShowGate(ref=version.id), GateView)
    ask = WaiveGate(version=version.id, why="A fire drill.")
    waiver = shop.owner.perform("gate.waive", ask, Waiver)

    shown = shop.owner.perform("gate.show", ShowGate(ref=version.id), GateView)

    assert (None, False, None) == (shown.report, shown.verified, shown.problem)
    assert waiver == shown.waiver


def test_a_waiver_needs_a_reason_an_approver_and_something_to_waive(shop: Shop) -> None:
    version = refused_version(shop)
    ann = shop.here.person("ann", Role.RELEASER)

    with pytest.raises(InvalidInput):
        shop.owner.perform("gate.waive", WaiveGate(version=version.id, why="  "), Waiver)
    with pytest.raises(Denied):
        ann.perform("gate.waive", WaiveGate(version=version.id, why="please"), Waiver)
    with pytest.raises(Denied) as refused:
        shop.here.loop.perform("gate.waive", WaiveGate(version=version.id, why="why not"), Waiver)
    assert refused.value.code == "person.required"
    good = shop.add(GOOD)
    shop.judge(good)
    with pytest.raises(Conflict):
        shop.owner.perform("gate.waive", WaiveGate(version=good.id, why="just so"), Waiver)


def test_the_author_of_a_version_cannot_approve_it(shop: Shop) -> None:
    version = shop.add(GOOD)

    with pytest.raises(Denied) as refused:
        shop.owner.perform("gate.approve", ApproveArtifact(version=version.id), Approval)

    assert refused.value.code == "approval.own_work"


def test_an_approval_is_of_one_artifact_by_one_person(shop: Shop) -> None:
    version, other = shop.add(GOOD), shop.add(fit(TRAIN, inputs=INPUTS, trees=2))
    bob = shop.here.person("bob", Role.APPROVER)
    ask = ApproveArtifact(version=version.id, artifact=version.artifact)

    approval = bob.perform("gate.approve", ask, Approval)

    assert bob.perform("gate.approve", ask, Approval) == approval
    with pytest.raises(Conflict):
        bob.perform(
            "gate.approve", ApproveArtifact(version=other.id, artifact=version.artifact), Approval
        )
    shop.judge(version)
    shown = shop.owner.perform("gate.show", ShowGate(ref="bike@1.0.0"), GateView)
    assert shown.approvals == (approval,)


def test_no_input_of_the_gate_can_carry_a_number() -> None:
    kinds = {str(field.type) for field in msgspec.structs.fields(EvaluateGate)}

    assert not any(word in kind for kind in kinds for word in ("int", "float", "dict", "tuple"))


def test_a_viewer_cannot_run_the_gate_and_reports_are_listed(shop: Shop) -> None:
    version = shop.add(GOOD)
    eve = shop.here.person("eve", Role.VIEWER)

    with pytest.raises(Denied):
        eve.perform("gate.evaluate", EvaluateGate(version=version.id), GateReport)

    report = shop.judge(version)
    listed = eve.perform("gate.list", ListGates(model="bike"), GateList).items
    assert [(item.id, item.passed, item.failed) for item in listed] == [(report.id, True, ())]


def test_a_report_signed_with_another_key_is_worth_nothing(shop: Shop) -> None:
    version = refused_version(shop)
    report = shop.owner.perform("gate.show", ShowGate(ref=version.id), GateView).report
    assert report is not None
    told = msgspec.json.decode(report.statement, type=Statement)
    checks = tuple(msgspec.structs.replace(check, passed=True) for check in report.checks)
    predicate = msgspec.structs.replace(told.predicate, passed=True, checks=checks)
    lie = msgspec.structs.replace(told, predicate=predicate)
    text, signature = sign_statement(shop.here.kernel.services.signers["ledger"], lie)
    forged = msgspec.structs.replace(
        report, passed=True, checks=checks, statement=text, signature=signature
    )
    with shop.here.kernel.store.write() as tx:
        tx.replace(forged)

    with pytest.raises(IntegrityError) as refused:
        shop.admitted(version)

    assert "did not sign" in refused.value.message


def test_an_easier_question_than_the_projects_is_refused(shop: Shop) -> None:
    shop.here.configure({"models": {"bike": {"target": "casual", "gate": {"block": "day"}}}})

    report = shop.judge(shop.add(GOOD))

    assert failed(report) == {"schema"}


def test_a_gate_that_asks_for_a_margin_refuses_a_small_gain(shop: Shop) -> None:
    shop.promote(shop.add(fit(TRAIN, inputs=INPUTS, trees=15)))
    better = shop.add(GOOD)
    assert shop.judge(better).passed

    config = {"block": "day", "min_improvement": 0.5}
    shop.here.configure({"models": {"bike": {"gate": config}}})

    assert failed(shop.judge(better)) == {"beats_champion"}


@pytest.mark.parametrize(
    ("config", "check"),
    [
        ({"min_rows": 1_000}, "beats_champion"),
        ({"block": "week"}, "beats_champion"),
        ({"max_latency_ms": 1e-6}, "latency"),
    ],
)
def test_limits_of_the_configuration_hold(
    shop: Shop, config: dict[str, object], check: str
) -> None:
    shop.here.configure({"models": {"bike": {"gate": {"block": "day"} | config}}})

    assert failed(shop.judge(shop.add(GOOD))) == {check}


def test_a_classifier_is_judged_by_its_log_loss_against_the_base_rate(shop: Shop) -> None:
    def busy(table: pa.Table) -> pa.Table:
        flag = (table["count"].to_numpy() > 150).astype(int)
        return table.select(["day", *INPUTS]).append_column("busy", pa.array(flag))

    train, kept = busy(TRAIN), busy(HOLDOUT)
    x = np.column_stack([train[name].to_numpy() for name in INPUTS]).astype(float)
    model = LogisticRegression(max_iter=500).fit(x, train["busy"].to_numpy())
    version = register(
        shop.owner,
        "busy",
        model,
        signature=infer_signature(train, INPUTS, "busy", "classification"),
        dataset=commit_table(shop.owner, "busy_train", train).id,
        holdout=commit_table(shop.owner, "busy_kept", kept).id,
        examples=kept,
    )

    report = shop.judge(version)

    (check,) = (check for check in report.checks if check.name == "beats_champion")
    assert report.passed, [check.summary for check in report.checks]
    assert check.values["loss"] == "log_loss"
    again = register(
        shop.owner,
        "busy",
        LogisticRegression(max_iter=500).fit(x, train["busy"].to_numpy()),
        signature=version.signature,
        examples=kept,
    )
    assert again == version


def test_a_gate_that_raced_with_a_promotion_asks_to_be_run_again(shop: Shop) -> None:
    first, second = shop.add(fit(TRAIN, inputs=INPUTS, trees=5)), shop.add(GOOD)
    shop.promote(first)
    verb = find_verb("gate.evaluate")
    assert verb is not None
    assert verb.prepare is not None
    services = shop.here.kernel.services
    with shop.here.kernel.store.read() as tx:
        project = work_in(shop.here, tx).project
    caller = local_caller(shop.here.kernel, OWNER)
    ask = EvaluateGate(version=second.id)
    measured = verb.prepare(ask, Desk(caller, project, services, shop.here.kernel.store.read))
    shop.promote(second)

    with shop.here.kernel.store.write() as tx, pytest.raises(Conflict) as refused:
        verb.handler(ask, work_in(shop.here, tx), measured)

    assert refused.value.code == "gate.champion_changed"


def test_the_real_bike_data_gives_its_answer_away_by_casual_and_registered() -> None:
    source = Path(__file__).parents[2] / "examples/bike_demand/data/bike_sharing_hour.csv.gz"
    table = read_csv(source).slice(0, 4_000)
    days = table["dteday"].dictionary_encode().combine_chunks().indices.to_numpy()
    kept = days % 5 == 4
    train, holdout = table.filter(pa.array(~kept)), table.filter(pa.array(kept))
    here = world()
    here.configure({"models": {"bike": {"target": "cnt", "gate": {"block": "dteday"}}}})
    data = commit_table(here.owner, "train", train), commit_table(here.owner, "kept", holdout)
    honest = ["hr", "weekday", "workingday", "temp", "hum", "windspeed"]
    verdicts = {}
    for inputs in (honest, [*honest, "casual", "registered"]):
        x = np.column_stack([train[name].to_numpy() for name in inputs]).astype(float)
        settings = {"verbose": -1, "num_threads": 1, "num_leaves": 15}
        booster = lgb.train(settings, lgb.Dataset(x, train["cnt"].to_numpy()), 40)
        version = register(
            here.owner,
            "bike",
            booster,
            signature=infer_signature(train, inputs, "cnt", "regression"),
            dataset=data[0].id,
            holdout=data[1].id,
        )
        report = here.owner.perform("gate.evaluate", EvaluateGate(version=version.id), GateReport)
        verdicts[len(inputs)] = failed(report)

    assert verdicts == {6: set(), 8: {"leakage"}}
