"""Attacks on devices and by them: old offers, older versions, stolen tokens, replayed telemetry."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from everloop.app.verbs import load_verbs
from everloop.core.errors import Conflict, Denied, InvalidInput, NotAuthenticated
from everloop.edge.device.bundle import OFFER_CONTEXT
from everloop.edge.device.control import Control
from everloop.edge.device.refusal import EdgeError
from everloop.edge.device.updates import Updates
from everloop.edge.queries import EdgePart, FetchEdge
from everloop.fleet.devices import (
    FetchBundle,
    MoveDevice,
    PollDevice,
    RevokeDevice,
    SignedOffer,
)
from everloop.fleet.model import Device, Refusal
from everloop.fleet.queries import FleetDrift, ShowDrift
from everloop.fleet.reporting import Batch, ReportDevice, Reported, Row
from everloop.kernel.authz import Caller, TokenKind, authenticate
from everloop.kernel.performer import LocalPerformer
from everloop.registry.queries import ListModels, ModelList
from tests.kit import PROJECT, world
from tests.story.fleet import Yard
from tests.unit.edge import sealed

load_verbs()
NONCE = "n" * 32


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Yard:
    made = Yard(world(), tmp_path_factory.mktemp("yard"))
    made.seal(sealed.lightgbm_model(rounds=2))
    made.seal(sealed.lightgbm_model(rounds=3))
    return made


class Thief:
    """Whoever has a device's token, and the device's own state."""

    def __init__(self, yard: Yard, fleet: str, group: str = "rest") -> None:
        self.yard = yard
        yard.create(fleet)
        self.made = yard.enrol(fleet, "box", group)
        told = {
            "url": "http://127.0.0.1:9", "project": self.made.project, "fleet": fleet,
            "device": "box", "token": self.made.token, "key": self.made.key,
        }  # fmt: skip
        self.control = Control(told)

    @property
    def calls(self) -> LocalPerformer:
        kernel = self.yard.world.kernel
        with kernel.store.read() as tx:
            caller: Caller = authenticate(
                tx, self.made.token, self.yard.world.clock.now(), [TokenKind.API]
            )
        return LocalPerformer(kernel, caller, PROJECT)

    def poll(self, nonce: str = NONCE, running: str | None = None) -> SignedOffer:
        ask = PollDevice(nonce=nonce, running=running)  # type: ignore[arg-type]
        return self.calls.perform("device.poll", ask, SignedOffer)

    def updates(self, folder: Path, first: int = 0) -> Updates:
        made = Updates(folder, self.control.key)
        made.adopt(self.yard.files[first])
        return made

    def report(self, batch: Batch | None = None, **more: Any) -> Reported:
        told = {"sent_at_us": int(self.yard.world.clock.now().timestamp() * 1e6), **more}
        return self.calls.perform("device.report", ReportDevice(batch=batch, **told), Reported)


def sign(yard: Yard, **told: object) -> dict[str, str]:
    """An offer signed by the real key, for attacks by whoever can make the server say so."""
    text = json.dumps({"kind": "everloop fleet offer", "device": "box", "nonce": NONCE, **told})
    signer = yard.world.kernel.services.signers["evaluator"]
    return {
        "offer": text,
        "signature": signer.sign(OFFER_CONTEXT + text.encode()).hex(),
    }


def batch(number: int = 1, *, version: str, answers: int = 2, **changes: Any) -> Batch:
    told = {"n": answers, "mean": 1.0, "m2": 0.0, "total": 2.0, "minimum": 1.0, "maximum": 1.0}
    sketch = {
        "answers": answers, "errors": 0, "invalid": 0, "latency_us": 9, "output": told,
        "columns": {},
    }  # fmt: skip
    plain = {
        "series": "s1", "number": number, "first": 1, "dropped": 0, "torn": 0, "rows": [],
        "sketches": {version: {**sketch, **changes}},
    }  # fmt: skip
    return msgspec.convert(plain, Batch)


def refused(code: str) -> Any:
    return pytest.raises(EdgeError, match=rf"\[{code}\]")


# --- offers ---------------------------------------------------------------------------------------


def test_an_old_answer_can_not_stand_in_for_a_new_one(yard: Yard) -> None:
    thief = Thief(yard, "nonces")
    old = msgspec.to_builtins(thief.poll("o" * 32))

    with refused("edge.offer_forged"):
        thief.control.check_offer(old, NONCE)


@pytest.mark.parametrize(
    "change", [{"device": "other"}, {"fleet": "other"}, {"kind": "manifest"}, {"epoch": "9"}]
)
def test_an_offer_for_somebody_else_is_none(yard: Yard, change: dict[str, object]) -> None:
    name = f"else-{next(iter(change))}"
    thief = Thief(yard, name)
    told = {"fleet": name, "epoch": 1, **change}

    assert thief.control.check_offer(sign(yard, fleet=name, epoch=1), NONCE)
    with refused("edge.offer_forged"):
        thief.control.check_offer(sign(yard, **told), NONCE)


def test_an_offer_that_somebody_changed_is_none(yard: Yard) -> None:
    thief = Thief(yard, "changed")
    told = msgspec.to_builtins(thief.poll())
    told["offer"] = told["offer"].replace('"rollback":false', '"rollback":true')

    with refused("edge.offer_forged"):
        thief.control.check_offer(told, NONCE)


def test_a_device_never_goes_back_in_the_epoch(yard: Yard, tmp_path: Path) -> None:
    thief = Thief(yard, "epochs", "canary")
    updates = thief.updates(tmp_path)
    offer = {"epoch": 7, "digest": updates.current, "number": 1, "rollback": False}
    updates.take(offer, thief.control)

    for old in ({**offer, "epoch": 6}, {**offer, "digest": "sha256:" + "0" * 64}):
        with refused("edge.offer_old"):
            updates.take(old, thief.control)
    assert 7 == updates.told["epoch"]


def test_an_older_version_counts_only_as_a_signed_rollback(yard: Yard, tmp_path: Path) -> None:
    thief = Thief(yard, "older")
    updates = thief.updates(tmp_path, first=1)
    older = yard.bundles[0].bundle
    offer = {
        "epoch": 1, "digest": older.digest, "number": older.number, "rollback": False,
        "size_bytes": older.size_bytes,
    }  # fmt: skip

    with refused("edge.downgrade"):
        updates.take(offer, thief.control)
    assert yard.bundles[1].bundle.digest == updates.current

    whole = yard.files[0].read_bytes()
    fetch = lambda digest, offset: {"data": whole[offset:], "size_bytes": len(whole)}  # noqa: E731
    thief.control.fetch = fetch  # type: ignore[method-assign]
    assert updates.take({**offer, "rollback": True}, thief.control)
    assert older.digest == updates.current


def test_other_bytes_than_were_offered_are_thrown_away(yard: Yard, tmp_path: Path) -> None:
    thief = Thief(yard, "bytes")
    updates = thief.updates(tmp_path)
    newer = yard.bundles[1].bundle
    other = b"x" * newer.size_bytes
    fetch = lambda digest, offset: {"data": other[offset:], "size_bytes": len(other)}  # noqa: E731
    thief.control.fetch = fetch  # type: ignore[method-assign]
    offer = {
        "epoch": 1, "digest": newer.digest, "number": newer.number, "rollback": False,
        "size_bytes": newer.size_bytes,
    }  # fmt: skip

    with refused("edge.wrong_digest"):
        updates.take(offer, thief.control)
    assert [updates.path(yard.bundles[0].bundle.digest)] == list((tmp_path / "bundles").iterdir())
    assert [] == updates.refusals()


@pytest.mark.parametrize("is_told", [True, False], ids=["no more comes", "the line breaks"])
def test_a_download_that_was_cut_replaces_nothing_and_the_next_one_does(
    yard: Yard, tmp_path: Path, *, is_told: bool
) -> None:
    thief = Thief(yard, f"cut-{is_told}")
    updates = thief.updates(tmp_path)
    before, newer = yard.bundles[0].bundle, yard.bundles[1].bundle
    whole = yard.files[1].read_bytes()
    ends = [len(whole) // 2]

    def fetch(digest: str, offset: int) -> dict[str, object]:
        assert newer.digest == digest
        if offset >= ends[-1] and not is_told:
            raise EdgeError("edge.offline", "The line broke.", "It is asked again.")
        return {"data": whole[offset : ends[-1]], "size_bytes": len(whole)}

    thief.control.fetch = fetch  # type: ignore[method-assign]
    offer = {
        "epoch": 1, "digest": newer.digest, "number": newer.number, "rollback": False,
        "size_bytes": len(whole),
    }  # fmt: skip

    with refused("edge.wrong_digest" if is_told else "edge.offline"):
        updates.take(offer, thief.control)
    assert before.digest == Updates(tmp_path, thief.control.key).current
    assert yard.files[0].read_bytes() == (tmp_path / "current.pyz").read_bytes()
    assert not updates.path(newer.digest).exists()

    ends.append(len(whole))
    assert updates.take(offer, thief.control)
    assert whole == (tmp_path / "current.pyz").read_bytes()


def test_a_bundle_that_was_tried_twice_and_never_confirmed_is_left(
    yard: Yard, tmp_path: Path
) -> None:
    thief = Thief(yard, "twice")
    updates = thief.updates(tmp_path)
    before, after = (bundle.bundle.digest for bundle in yard.bundles)
    updates.path(after).write_bytes(yard.files[1].read_bytes())
    updates._write(current=after, previous=before, trying=True)

    tried = [Updates(tmp_path, thief.control.key).begin_try() for _ in range(4)]

    assert [after, after, before, before] == tried
    told = Updates(tmp_path, thief.control.key)
    assert [{"digest": after, "reason": "edge.unhealthy"}] == told.refusals()


# --- tokens ---------------------------------------------------------------------------------------


def test_a_stolen_token_opens_nothing_but_its_own_device(yard: Yard) -> None:
    thief = Thief(yard, "stolen")
    digest = yard.bundles[0].bundle.digest

    for verb, ask, answer in (
        ("model.list", ListModels(), ModelList),
        ("edge.fetch", FetchEdge(digest=digest), EdgePart),
        ("device.move", MoveDevice(fleet="stolen", name="box", group="canary"), Device),
        ("fleet.drift", ShowDrift(fleet="stolen", version="1.0.0"), FleetDrift),
    ):
        with pytest.raises(Denied):
            thief.calls.perform(verb, ask, answer)
    with pytest.raises(Denied, match="not what this device should run"):
        thief.calls.perform("device.fetch", FetchBundle(digest=digest), EdgePart)


def test_nobody_but_a_device_polls_or_reports(yard: Yard) -> None:
    with pytest.raises(Denied) as turned:
        yard.world.owner.perform("device.poll", PollDevice(nonce=NONCE), SignedOffer)

    assert "device.unknown" == turned.value.code


def test_a_revoked_token_is_good_for_nothing_at_once(yard: Yard) -> None:
    thief = Thief(yard, "revoked")
    thief.poll()

    ask = RevokeDevice(fleet="revoked", name="box")
    yard.world.owner.perform("device.revoke", ask, Device)

    with pytest.raises(NotAuthenticated):
        thief.poll()


# --- telemetry ------------------------------------------------------------------------------------


def test_a_replayed_batch_counts_once(yard: Yard) -> None:
    thief = Thief(yard, "replay")
    told = batch(version=yard.bundles[0].bundle.version)

    assert [True, False, False] == [thief.report(told).is_new for _ in range(3)]
    assert [2] == [version.answers for version in yard.show("replay").versions]


def test_another_batch_under_a_used_number_is_refused(yard: Yard) -> None:
    thief = Thief(yard, "forged")
    version = yard.bundles[0].bundle.version
    thief.report(batch(version=version))

    with pytest.raises(Conflict) as turned:
        thief.report(batch(version=version, invalid=1))
    assert "telemetry.replayed" == turned.value.code
    assert [(2, 0)] == [(told.answers, told.invalid) for told in yard.show("forged").versions]


def test_a_token_that_two_devices_use_is_noticed(yard: Yard) -> None:
    thief = Thief(yard, "cloned")
    version = yard.bundles[0].bundle.version
    thief.report(batch(version=version))

    thief.report(msgspec.structs.replace(batch(version=version), series="s2"))

    (seen,) = yard.show("cloned").devices
    assert "its token is used by two" in seen.device.problem


@pytest.mark.parametrize(
    "change",
    [
        {"columns": {"age": {"rows": 3, "nulls": 3}}},
        {"columns": {"age": {"rows": 2, "nulls": 0, "counts": [1, 1]}}},
        {"columns": {"city": {"rows": 2, "nulls": 0, "counts": [9] * 12}}},
        {"errors": 2, "invalid": 1},
    ],
)
def test_counts_that_do_not_add_up_are_refused_as_a_whole(
    yard: Yard, change: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    name = f"sums-{abs(hash(json.dumps(change))) % 10**8}"
    thief = Thief(yard, name)

    with pytest.raises(InvalidInput) as turned:
        thief.report(batch(version=yard.bundles[0].bundle.version, **change))

    assert "telemetry.invalid" == turned.value.code
    assert () == yard.show(name).versions
    assert [None] == [seen.device.seen_at for seen in yard.show(name).devices]


def test_a_device_that_tells_of_huge_numbers_does_not_silence_the_fleet(yard: Yard) -> None:
    mad = Thief(yard, "huge")
    version = yard.bundles[0].bundle.version
    for number, huge in enumerate((1e308, -1e308, 1e308), 1):
        moments = {
            "n": 2, "mean": huge, "m2": 1e308, "total": huge, "minimum": huge, "maximum": huge,
        }  # fmt: skip
        mad.report(batch(number, version=version, output=moments))

    assert mad.report(batch(4, version=version)).is_new

    assert [8] == [told.answers for told in yard.show("huge").versions]


def test_inputs_that_the_version_does_not_have_are_refused(yard: Yard) -> None:
    thief = Thief(yard, "names")
    columns = {"name-of-somebody": {"rows": 2, "nulls": 2}}

    with pytest.raises(InvalidInput, match="no input of the version"):
        thief.report(batch(version=yard.bundles[0].bundle.version, columns=columns))

    assert () == yard.show("names").versions


def test_an_answer_with_a_number_that_is_none_is_taken_in() -> None:
    text = b'["id", 1, "v", "invalid", [null, 0.5], 7, [1]]'

    assert (None, 0.5) == msgspec.json.decode(text, type=Row)[4]


def test_a_version_of_nowhere_is_refused(yard: Yard) -> None:
    thief = Thief(yard, "nowhere")

    with pytest.raises(InvalidInput) as turned:
        thief.report(batch(version="01930000-0000-7000-8000-00000000dead"))
    assert "telemetry.version_unknown" == turned.value.code


def test_a_clock_that_is_wrong_by_years_is_told_and_changes_nothing_else(yard: Yard) -> None:
    thief = Thief(yard, "clocks")
    wrong = yard.world.clock.now() + timedelta(days=3_650)

    thief.report(
        batch(version=yard.bundles[0].bundle.version), sent_at_us=int(wrong.timestamp() * 1e6)
    )

    (seen,) = yard.show("clocks").devices
    assert 3_650 * 86_400 == pytest.approx(seen.device.skew_s)
    assert seen.device.seen_at == yard.world.clock.now()


def boxes_of(yard: Yard, fleet: str, groups: list[str], running: str) -> list[Thief]:
    """A fleet whose target is the first bundle, with the second one on its way; and its devices."""
    yard.create(fleet)
    yard.release(fleet, yard.bundles[0])
    yard.step(fleet)
    yard.step(fleet)
    yard.release(fleet, yard.bundles[1])
    boxes = []
    for number, group in enumerate(groups):
        thief = Thief.__new__(Thief)
        thief.yard = yard
        thief.made = yard.enrol(fleet, f"box-{number}", group)
        boxes.append(thief)
        thief.report(running=running)
    return boxes


def test_devices_that_fail_take_the_release_back_by_themselves(yard: Yard) -> None:
    new, old = yard.bundles[1].bundle, yard.bundles[0].bundle
    boxes = boxes_of(yard, "evidence", ["canary"] * 6 + ["rest"] * 24, old.digest)
    for thief in boxes[:6]:
        thief.report(running=new.digest)

    for thief in boxes[:6]:
        if yard.show("evidence").release is not None:
            thief.report(batch(version=new.version, errors=1), running=new.digest)

    seen = yard.show("evidence")
    assert seen.release is None
    assert [yard.bundles[0].version] * 2 == [group.wanted for group in seen.groups]


def test_devices_that_fail_whatever_they_run_do_not_take_the_release_back(yard: Yard) -> None:
    new, old = yard.bundles[1].bundle, yard.bundles[0].bundle
    boxes = boxes_of(yard, "flaky", ["canary"] * 14 + ["rest"] * 14, old.digest)
    for thief in boxes[14:]:
        thief.report(batch(version=old.version, errors=1), running=old.digest)
    for thief in boxes[:14]:
        thief.report(running=new.digest)

    for thief in boxes[:14]:
        thief.report(batch(version=new.version, errors=1), running=new.digest)

    seen = yard.show("flaky").release
    assert seen is not None  # all others had counted: only these could still have done it
    assert (28, 14) == (
        seen.guardrails["error"].events,
        seen.guardrails["error"].challenger_events,
    )
    assert 1.0 == pytest.approx(seen.evidence_bad)


def test_a_device_counts_once_and_for_what_it_was_known_to_run(yard: Yard) -> None:
    new, old = yard.bundles[1].bundle, yard.bundles[0].bundle
    first, _ = boxes_of(yard, "known", ["canary", "rest"], old.digest)

    events = []
    for number in range(1, 5):
        first.report(batch(number, version=new.version, errors=1), running=new.digest)
        seen = yard.show("known").release
        assert seen is not None
        events.append(seen.guardrails["error"].challenger_events)

    assert [0, 1, 1, 1] == events


def test_a_bundle_that_devices_left_is_no_evidence_and_stops_the_release(yard: Yard) -> None:
    new, old = yard.bundles[1].bundle, yard.bundles[0].bundle
    boxes = boxes_of(yard, "installs", ["canary"] * 6 + ["rest"] * 24, old.digest)

    for thief in boxes[:6]:
        thief.report(running=old.digest, refused=(Refusal(digest=new.digest, reason="edge.full"),))

    seen = yard.show("installs").release
    assert seen is not None
    assert 1.0 == seen.evidence_bad
    assert "Waiting: 6 of 6 devices tried it and left it, so a person decides." == seen.why


def test_answers_of_a_group_that_is_not_reached_do_not_count_for_the_next_step(
    yard: Yard,
) -> None:
    new, old = yard.bundles[1].bundle, yard.bundles[0].bundle
    boxes = boxes_of(yard, "early", ["canary", "rest"], old.digest)

    for thief in boxes:
        thief.report(batch(version=new.version, answers=4), running=new.digest)

    seen = yard.show("early").release
    assert seen is not None
    assert 4 == seen.answers
