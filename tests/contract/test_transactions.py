"""What the ports `Transaction` and `MetadataStore` promise, for every store."""

from __future__ import annotations

import threading

import msgspec
import pytest

from everloop.core.errors import Conflict, InvalidInput, LimitExceeded, StaleVersion
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, MetadataStore, Transaction, where
from tests.contract.kinds import Counter, Named, Thing, named


def keep(store: MetadataStore, *rows: Named) -> None:
    with store.write() as tx:
        for row in rows:
            tx.insert(row)


def names(store: MetadataStore) -> list[str | None]:
    with store.read() as tx:
        return [row.name for row in tx.select(Named)]


# --- all or nothing -------------------------------------------------------------------------------


def test_writes_become_visible_together_at_the_end(store: MetadataStore) -> None:
    with store.write() as tx:
        tx.insert(named("1", "a"))
        tx.insert(named("2", "b"))

        assert [] == names(store)

    assert ["a", "b"] == names(store)


def test_nothing_is_kept_of_a_transaction_that_raises(store: MetadataStore) -> None:
    keep(store, named("1", "kept"))

    def fail() -> None:
        with store.write() as tx:
            tx.insert(named("2", "lost"))
            tx.delete(named("1", "kept"))
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert ["kept"] == names(store)


def test_a_transaction_sees_its_own_writes(store: MetadataStore) -> None:
    with store.write() as tx:
        tx.insert(named("1", "a", value=1))
        fresh = tx.replace(named("1", "a", value=2))

        assert fresh == tx.find(Named, Id("1"))
        assert [fresh] == tx.select(Named, *where(value=2))
        assert 1 == tx.count(Named)
        tx.delete(fresh)
        assert tx.find(Named, Id("1")) is None


def test_a_store_works_on_after_a_transaction_that_raised(store: MetadataStore) -> None:
    def fail() -> None:
        with store.write() as tx:
            tx.insert(named("1", "a"))
            raise KeyError

    for _ in range(3):
        with pytest.raises(KeyError):
            fail()

    keep(store, named("1", "a"))

    assert ["a"] == names(store)


@pytest.mark.parametrize("mode", ["read", "write"])
def test_a_transaction_ends_with_its_block(store: MetadataStore, mode: str) -> None:
    with store.write() if mode == "write" else store.read() as tx:
        pass

    with pytest.raises(RuntimeError, match="has ended"):
        tx.find(Named, Id("1"))


# --- rows -----------------------------------------------------------------------------------------


def test_a_taken_id_is_refused(store: MetadataStore) -> None:
    keep(store, named("1", "a"))

    with pytest.raises(Conflict, match=r"record\.exists"):
        keep(store, named("1", "b"))


def test_a_taken_unique_group_is_refused_on_insert(store: MetadataStore) -> None:
    keep(store, named("1", "a"), named("2", "a", group="other"))

    with pytest.raises(Conflict, match=r"record\.exists"):
        keep(store, named("3", "a"))


def test_a_taken_unique_group_is_refused_on_replace(store: MetadataStore) -> None:
    keep(store, named("1", "a"), named("2", "b"))

    with pytest.raises(Conflict, match=r"record\.exists"), store.write() as tx:
        tx.replace(named("2", "a"))

    assert ["a", "b"] == names(store)


def test_a_unique_group_with_a_null_never_clashes(store: MetadataStore) -> None:
    keep(store, named("1"), named("2"))

    assert [None, None] == names(store)


def test_a_unique_group_is_free_again_after_a_delete(store: MetadataStore) -> None:
    keep(store, named("1", "a"))

    with store.write() as tx:
        tx.delete(named("1", "a"))
        tx.insert(named("2", "a"))

    assert ["a"] == names(store)


def test_a_conflict_that_was_swallowed_still_stops_the_commit(store: MetadataStore) -> None:
    keep(store, named("1", "a"))

    def swallow(tx: Transaction) -> None:
        tx.insert(named("2", "lost"))
        with pytest.raises(Conflict):
            tx.insert(named("1", "again"))

    with pytest.raises(Conflict, match=r"record\.exists"), store.write() as tx:
        swallow(tx)

    assert ["a"] == names(store)


def test_replace_counts_revisions(store: MetadataStore) -> None:
    keep(store, named("1", "a"))

    with store.write() as tx:
        first = tx.replace(named("1", "b"))
        second = tx.replace(msgspec.structs.replace(first, name="c"))

    assert (1, 2) == (first.revision, second.revision)
    with store.read() as view:
        assert second == view.find(Named, Id("1"))


@pytest.mark.parametrize("change", ["replace", "delete"])
def test_a_row_that_moved_on_is_not_changed(store: MetadataStore, change: str) -> None:
    stale = named("1", "a")
    keep(store, stale)
    with store.write() as tx:
        tx.replace(msgspec.structs.replace(stale, name="newer"))

    with pytest.raises(StaleVersion, match=r"record\.stale"), store.write() as tx:
        getattr(tx, change)(stale)

    assert ["newer"] == names(store)


@pytest.mark.parametrize("change", ["replace", "delete"])
def test_a_row_that_is_gone_is_stale(store: MetadataStore, change: str) -> None:
    with pytest.raises(StaleVersion, match=r"record\.stale"), store.write() as tx:
        getattr(tx, change)(named("1", "a"))


def test_a_transaction_goes_on_after_a_stale_row(store: MetadataStore) -> None:
    with store.write() as tx:
        with pytest.raises(StaleVersion):
            tx.replace(named("1", "a"))
        tx.insert(named("2", "b"))

    assert ["b"] == names(store)


def test_what_is_absent_is_none_or_empty(store: MetadataStore) -> None:
    with store.read() as tx:
        assert tx.find(Named, Id("1")) is None
        assert [] == tx.select(Named)
        assert 0 == tx.count(Named)


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["insert", "replace", "delete"])
def test_a_read_transaction_does_not_write(store: MetadataStore, change: str) -> None:
    keep(store, named("1", "a"))

    with store.read() as tx, pytest.raises(TypeError, match="read transaction"):
        getattr(tx, change)(named("1", "b"))

    assert ["a"] == names(store)


def test_a_read_sees_one_snapshot_while_others_write(store: MetadataStore) -> None:
    keep(store, named("1", "a"))

    with store.read() as tx:
        before = tx.select(Named)
        keep(store, named("2", "b"))

        assert before == tx.select(Named)
        assert 1 == tx.count(Named)
        assert tx.find(Named, Id("2")) is None

    assert ["a", "b"] == names(store)


def test_a_reader_does_not_wait_for_a_writer(store: MetadataStore) -> None:
    keep(store, named("1", "a"))
    with store.write() as tx:
        tx.replace(named("1", "b"))

        assert ["a"] == names(store)


def test_a_thread_is_not_left_waiting_for_itself(store: MetadataStore) -> None:
    with store.write(), pytest.raises(RuntimeError, match="already"), store.write():
        pass


def test_a_store_is_closed_twice_without_harm(store: MetadataStore) -> None:
    store.close()
    store.close()


# --- conditions -----------------------------------------------------------------------------------

PREFIXED = ("ab", "a%", "a_b", "a", "A", "aé", "a\uffff", "a\U0001f600", "b", "a\x00", "\x01")


@pytest.mark.parametrize("prefix", ["", "a", "a%", "a_", "aé", "a\uffff", "a\x00", "\x01", "z"])
def test_prefix_means_prefix_whatever_the_characters(store: MetadataStore, prefix: str) -> None:
    keep(store, *(named(str(n), text) for n, text in enumerate(PREFIXED)), named("none"))

    with store.read() as tx:
        found = tx.select(Named, Condition("name", Compare.PREFIX, prefix))

    assert {text for text in PREFIXED if text.startswith(prefix)} == {row.name for row in found}


@pytest.mark.parametrize(
    ("compare", "value", "expected"),
    [
        (Compare.EQ, None, "-"),
        (Compare.NE, None, "abc"),
        (Compare.EQ, "b", "b"),
        (Compare.NE, "b", "-ac"),
        (Compare.LT, "b", "a"),
        (Compare.LE, "b", "ab"),
        (Compare.GT, "b", "c"),
        (Compare.GE, "b", "bc"),
        (Compare.LT, None, ""),
        (Compare.GE, None, ""),
        (Compare.PREFIX, None, ""),
        (Compare.IN, (), ""),
        (Compare.IN, ("a", "c", "z"), "ac"),
        (Compare.IN, (None, "c"), "-c"),
        (Compare.IN, (None,), "-"),
    ],
)
def test_nulls_equal_nulls_and_have_no_place_in_an_order(
    store: MetadataStore, compare: Compare, value: str | None, expected: str
) -> None:
    keep(store, named("-"), named("a", "a"), named("b", "b"), named("c", "c"))
    condition = Condition("name", compare, value)

    with store.read() as tx:
        assert list(expected) == [row.id for row in tx.select(Named, condition)]
        assert len(expected) == tx.count(Named, condition)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Condition("value", Compare.LT, 10**30), 2),
        (Condition("value", Compare.GT, -(10**30)), 2),
        (Condition("value", Compare.EQ, 2**63), 0),
        (Condition("value", Compare.GE, 0.5), 1),
        (Condition("value", Compare.IN, (1, 2**70)), 1),
    ],
)
def test_numbers_compare_whatever_their_size(
    store: MetadataStore, condition: Condition, expected: int
) -> None:
    keep(store, named("a", "a", value=1), named("b", "b", value=-(2**63)))

    with store.read() as tx:
        assert expected == tx.count(Named, condition)


def test_all_conditions_must_hold(store: MetadataStore) -> None:
    keep(store, named("1", "a", value=1), named("2", "b", value=1), named("3", "c", value=2))

    with store.read() as tx:
        found = tx.select(Named, *where(value=1), Condition("name", Compare.GT, "a"))

    assert ["b"] == [row.name for row in found]


def test_a_thousand_values_are_found_in_one_question(store: MetadataStore) -> None:
    keep(store, *(named(f"{n:04d}", str(n)) for n in range(1000)))
    wanted = tuple(str(n) for n in range(1000))

    with store.read() as tx:
        assert 1000 == tx.count(Named, Condition("name", Compare.IN, wanted))
        with pytest.raises(LimitExceeded, match=r"query\.too_many_values"):
            tx.count(Named, Condition("name", Compare.IN, wanted * 20))


@pytest.mark.parametrize(
    "condition",
    [
        Condition("nothing", Compare.EQ, 1),
        Condition("parts", Compare.EQ, "x"),
        Condition("number", Compare.EQ, "x"),
        Condition("text", Compare.GT, 1),
        Condition("text", Compare.IN, "x"),
        Condition("number", Compare.PREFIX, 1),
        Condition('text" OR 1=1 --', Compare.EQ, "x"),
    ],
)
def test_a_condition_that_makes_no_sense_is_a_type_error(
    store: MetadataStore, condition: Condition
) -> None:
    with store.read() as tx, pytest.raises(TypeError):
        tx.select(Thing, condition)


def test_an_order_by_nothing_is_a_type_error(store: MetadataStore) -> None:
    with store.read() as tx, pytest.raises(TypeError):
        tx.select(Thing, order="nothing; DROP TABLE thing")


def test_half_a_character_is_refused(store: MetadataStore) -> None:
    with store.read() as tx, pytest.raises(InvalidInput, match=r"text\.invalid"):
        tx.find(Named, Id("\ud800"))
    with pytest.raises(InvalidInput, match=r"text\.invalid"):
        keep(store, named("1", "\ud800"))


# --- serial ---------------------------------------------------------------------------------------


def test_two_threads_that_count_lose_nothing(store: MetadataStore) -> None:
    with store.write() as tx:
        tx.insert(Counter(id=Id("c"), value=0))

    def count() -> None:
        for _ in range(40):
            with store.write() as work:
                found = work.find(Counter, Id("c"))
                assert found is not None
                work.replace(msgspec.structs.replace(found, value=found.value + 1))

    threads = [threading.Thread(target=count) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with store.read() as view:
        counter = view.find(Counter, Id("c"))
    assert counter is not None
    assert (80, 80) == (counter.value, counter.revision)


def test_scrubbing_changes_no_row_and_can_be_repeated(store: MetadataStore) -> None:
    keep(store, named("1", "a"), named("2", "b"))
    with store.write() as tx:
        tx.delete(named("1", "a"))

    store.scrub()
    store.scrub()

    assert ["b"] == names(store)


def test_scrubbing_does_not_wait_for_ever_for_a_reader(store: MetadataStore) -> None:
    keep(store, named("1", "a"))
    with store.read() as view:
        before = view.select(Named)
        with store.write() as tx:
            tx.replace(named("1", "b"))

        store.scrub()

        assert before == view.select(Named)
    assert ["b"] == names(store)
