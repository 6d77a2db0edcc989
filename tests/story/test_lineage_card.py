"""The model card says what the records say, and what nobody said."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from everloop.core.errors import NotFound
from everloop.govern.cards import CardView, ShowCard
from everloop.govern.exporting import LedgerHead, LedgerVerdict, ShowHead, VerifyLedger
from tests.story.governed import COMMIT, Tale, tell


@pytest.fixture(scope="module")
def tale(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tale]:
    told = tell(tmp_path_factory.mktemp("card") / "everloop.db", segments=1)
    yield told
    told.world.kernel.store.close()


@pytest.fixture(scope="module")
def view(tale: Tale) -> CardView:
    return tale.owner.perform("card.show", ShowCard(ref="m@production"), CardView)


def test_the_card_tells_the_whole_story(tale: Tale, view: CardView) -> None:
    card = view.card

    assert ("m", "1.0.0", ("production",)) == (card.name, card.version, card.aliases)
    assert ["training", "holdout"] == [item.role for item in card.data]
    assert card.run is not None
    assert COMMIT == card.run.code_commit
    assert card.gate is not None
    assert card.gate.verified
    assert ["ann"] == [consent.by for consent in card.consents]
    assert ["promoted"] == [release.state for release in card.releases]
    assert ["m"] == [item.deployment for item in card.monitoring]
    assert card.problem is None


def test_every_check_of_the_gate_is_in_the_text(tale: Tale, view: CardView) -> None:
    for check in tale.report.checks:
        assert check.name.replace("_", r"\_") in view.markdown
    assert view.markdown.count(" passed: ") == len(tale.report.checks)


def test_the_text_has_all_sections_and_the_digests(tale: Tale, view: CardView) -> None:
    for title in ("Intended use", "Data", "Training", "Gate", "Releases", "In service", "Evidence"):
        assert f"\n## {title}\n" in view.markdown
    assert tale.version.artifact in view.markdown
    assert tale.training.root in view.markdown
    assert COMMIT in view.markdown


def test_what_the_owner_wrote_is_escaped(view: CardView) -> None:
    assert r"Rentals \*by hour\*." in view.markdown


def test_what_nobody_stated_is_said(view: CardView) -> None:
    assert "- results by subgroup: not stated" in view.markdown
    assert "- the environment of the training: not stated" in view.markdown
    assert "the intended use" not in view.card.missing


def test_the_cards_checkpoint_is_an_anchor(tale: Tale, view: CardView) -> None:
    assert tale.owner.perform("audit.head", ShowHead(), LedgerHead).note == view.card.checkpoint
    ask = VerifyLedger(anchor=view.card.checkpoint)
    found = tale.owner.perform("audit.verify", ask, LedgerVerdict)

    assert found.ok, found.problems
    assert () == found.warnings


def test_an_unknown_model_has_no_card(tale: Tale) -> None:
    with pytest.raises(NotFound):
        tale.owner.perform("card.show", ShowCard(ref="nobody"), CardView)
