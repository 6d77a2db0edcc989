"""Releases and the serving process together: decisions become routes, answers become evidence."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from everloop.core.wire import PredictionRow, Routes, TokenHash
from everloop.kernel.authz import hash_secret
from everloop.kernel.signing import Ed25519Signer
from everloop.registry.formats import read_model_files
from everloop.registry.model import ModelVersion
from everloop.release.collect import Judged, news_of_labels, news_of_rows
from everloop.release.model import Deployment, News, State
from everloop.release.queries import ReleaseView, live_release
from everloop.release.routes import bundle_path, routes_of
from everloop.serve.bundle import Bundle, write_bundle
from everloop.serve.files import write_atomically
from everloop.serve.protocol import InputField
from tests.unit.release.released import Released
from tests.unit.serve.served import LATER, ROW, TOKEN, Served, make_folder, wait_until

TRUTH = 128.0  # what really happens in the tests' one kind of hour


class Endpoint:
    """The deployment ``bikes`` of a project, served by a real process."""

    def __init__(self, folder: Path) -> None:
        self.demo = Released()
        self.served: Served = make_folder(folder)
        self.served.signer = Ed25519Signer("evaluator", bytes([1]) * 32)
        self.taken = 0

    def sync(self) -> Routes:
        """Write the routes as the records say, the bundles first."""
        with self.demo.look() as view:
            deployment = view.select(Deployment)[0]
            routes = routes_of(
                view,
                deployment,
                public_key=self.served.signer.public_key.hex(),
                tokens=(TokenHash(hash=hash_secret(TOKEN), expires_at=LATER),),
            )
            named = (routes.champion, routes.canary, routes.shadow, routes.previous)
            versions = [view.get(ModelVersion, arm.version_id) for arm in named if arm]
        for version in versions:
            self.seal(version)
        write_atomically(self.served.folder / "routes.json", msgspec.json.encode(routes))
        return routes

    def seal(self, version: ModelVersion) -> None:
        bundle = Bundle(
            deployment="bikes",
            model=version.name,
            version_id=version.id,
            number=version.number,
            semver=version.version,
            artifact=version.artifact,
            format=version.format,
            task=version.signature.task,
            inputs=msgspec.convert(
                msgspec.to_builtins(version.signature.inputs), tuple[InputField, ...]
            ),
            output_name=version.signature.output.name,
            output_minimum=-1_000.0,
            output_maximum=1_000.0,
            golden=(),
            files={entry.path: entry.digest for entry in version.files},
        )
        files = read_model_files(self.demo.world.blobs, version)
        folder = self.served.folder / bundle_path(version.id)
        write_bundle(folder, bundle, files, self.served.signer)

    def hours(self, count: int, seen: ReleaseView) -> ReleaseView:
        """Answer some hours, wait for the log, label them all, and tell the release."""
        client = self.served.client()
        for _ in range(count):
            client.predict([ROW], at=self.demo.now)
        wait_until(lambda: len(self.served.rows()) >= self.taken + count)
        rows = self.served.rows()[self.taken :]
        self.taken += len(rows)
        release = seen.release
        news = news_of_rows(release, rows).plus(
            news_of_labels(release, [self.label(row) for row in rows])
        )
        seen = self.demo.observe(seen, news)
        self.served.await_epoch(self.sync().epoch)
        return seen

    def label(self, row: PredictionRow) -> Judged:
        shadow = row.shadow_output
        return Judged(
            epoch=row.epoch,
            version=row.version,
            arm=row.arm,
            share=row.share,
            loss=None if row.output is None else abs(row.output - TRUTH),
            shadow_version=row.shadow_version,
            shadow_loss=None if shadow is None else abs(shadow - TRUTH),
        )


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    made = Endpoint(tmp_path / "bikes")
    yield made
    made.served.close()


def test_a_better_version_goes_all_the_way_by_what_was_answered(endpoint: Endpoint) -> None:
    champion, better = endpoint.demo.version(30.0), endpoint.demo.version(0.5)
    endpoint.demo.champion(champion)
    endpoint.sync()
    endpoint.served.start()
    seen = endpoint.demo.start(better)
    endpoint.served.await_epoch(endpoint.sync().epoch)
    # The frozen bound of the losses comes with the first look.
    seen = endpoint.demo.observe(seen, News())

    states = [seen.release.state]
    for _ in range(12):
        if seen.release.live is None:
            break
        seen = endpoint.hours(60, seen)
        states.append(seen.release.state)

    assert [State.SHADOW, State.CANARY, State.PROMOTED] == list(dict.fromkeys(states))
    answer = endpoint.served.client().predict([ROW]).predictions[0]
    assert better.id == answer.version
    assert answer.output is not None
    assert abs(answer.output - TRUTH) < 1.0


def test_a_model_forced_into_canary_is_rolled_back_and_nobody_saw_its_worst(
    endpoint: Endpoint,
) -> None:
    champion, broken = endpoint.demo.version(0.5), endpoint.demo.version(50_000.0)
    endpoint.demo.champion(champion)
    endpoint.sync()
    endpoint.served.start()
    seen = endpoint.demo.start(broken, strategy="canary")
    endpoint.served.await_epoch(endpoint.sync().epoch)

    for _ in range(8):
        if seen.release.live is None:
            break
        seen = endpoint.hours(30, seen)

    assert State.ROLLED_BACK == seen.release.state
    assert "invalid" in seen.release.why
    rows = endpoint.served.rows()
    answered = [row.fallback_output or row.output for row in rows]
    assert max(output for output in answered if output is not None) < 1_000.0
    assert {champion.id} == {
        one.version for one in endpoint.served.client().predict([ROW] * 50).predictions
    }


def test_a_rollback_reaches_callers_within_a_second(endpoint: Endpoint) -> None:
    first, second = endpoint.demo.version(0.5), endpoint.demo.version(90.0)
    endpoint.demo.champion(first)
    endpoint.sync()
    endpoint.served.start()
    endpoint.demo.champion(second)
    endpoint.served.await_epoch(endpoint.sync().epoch)
    client = endpoint.served.client()
    assert second.id == client.predict([ROW]).predictions[0].version

    begin = time.perf_counter()
    endpoint.demo.rollback()
    endpoint.sync()
    wait_until(lambda: client.predict([ROW]).predictions[0].version == first.id)
    spent = time.perf_counter() - begin

    assert spent < 1.0
    with endpoint.demo.look() as view:
        assert None is live_release(view, view.select(Deployment)[0])
