"""Where a thing came from, or what came of it: each node verified, each entry that touched it.

A prediction leads to the version that answered, its run, the steps, the data, the source of the
data, the commit of the code, and to the reports, approvals and releases that let it answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from everloop.core import merkle
from everloop.core.canonical import canonical_json
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.govern.model import Consent, EntryLine, Limit, Lineage, Link, Node, RefText
from everloop.govern.starting import LEAVES, Start, find_start, get_row, node_of
from everloop.govern.things import actor_name, describe, facts_of, line_of
from everloop.govern.verifying import Verdict, verify_blob, verify_row
from everloop.kernel.ledger.proving import UNREADABLE, Prover, entries_about
from everloop.kernel.lineage import Direction, Edge, Graph, walk
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.monitor.queries import PredictionView
from everloop.registry.evidence import Approval, Waiver, approvals_of
from everloop.registry.model import ModelVersion
from everloop.release.queries import find_admitting

ENTRIES_A_NODE = 8
DEEPEST = 100
EVIDENCE = frozenset({"approved", "judged", "overruled", "released", "trained"})
"""Relations from what was said about a thing later; a walk to the origins shows these too."""


class Towards(StrEnum):
    """Which way to walk."""

    UP = "up"
    DOWN = "down"
    BOTH = "both"


class ShowLineage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for the lineage of a thing.

    Attributes:
        ref: ``prediction:<id>``, ``model:bike@production``, ``dataset:bike@3``, ``run:<id>``,
            ``deployment:bike`` or any ``kind:id``.
        direction: ``up`` to the origins, ``down`` to what came of it, or ``both``.
        limit: Nodes at most.
        depth: Steps from the start at most.
        deep: Read large files again too, however long it takes.
    """

    ref: RefText
    direction: Towards = Towards.UP
    limit: Limit = 1_000
    depth: Annotated[int, Meta(ge=1, le=DEEPEST)] = 30
    deep: bool = False


@query("lineage.show", permission="lineage:read")
def show_lineage(ask: ShowLineage, view: View) -> Lineage:
    """Show where a thing came from, or what came of it, and verify all of it.

    Raises:
        InvalidInput: ``ref.invalid``.
        NotFound: there is no such thing.
    """
    start = find_start(view, ask.ref)
    prover = Prover(view.tx, view.services.signers["ledger"].public_key)
    return _Report(view, prover, is_deep=ask.deep).make(start, ask)


class _Report:
    """One answer in the making."""

    def __init__(self, view: View, prover: Prover, *, is_deep: bool) -> None:
        self._view = view
        self._prover = prover
        self._is_deep = is_deep

    def make(self, start: Start, ask: ShowLineage) -> Lineage:
        graph = self._walk(start, ask)
        nodes = [self._node(ref) for ref in graph.nodes]
        links = [self._link(edge) for edge in graph.edges]
        if start.prediction is not None:
            nodes.insert(0, self._prediction_node(start.prediction))
            links[:0] = _prediction_links(start.prediction)
        numbers = sorted({number for node in nodes for number in node.entries}, reverse=True)
        broken = [f"{node.ref}: {node.problem}" for node in nodes if node.verified is False]
        broken += [
            f"{link.source} {link.relation} {link.target}: it is not what the ledger says"
            for link in links
            if link.verified is False
        ]
        entries = []
        for number in numbers:
            line, problem = self._entry(number)
            entries += [line] if line else []
            broken += [problem] if problem else []
        return Lineage(
            start=start.node,
            nodes=tuple(nodes),
            edges=tuple(links),
            entries=tuple(entries),
            consents=self._consents(graph.nodes),
            broken=tuple(broken),
            truncated=graph.truncated,
        )

    def _walk(self, start: Start, ask: ShowLineage) -> Graph:
        seeds, at = [start.node], ask.direction
        if start.prediction is not None:
            # The version that answered, not every version that the segment holds answers of.
            seeds = [f"model_version:{start.prediction.row.version}"]
        graphs = []
        if at is not Towards.DOWN:
            origins = self._go(seeds, Direction.UP, ask)
            graphs.append(self._own_release(origins, start.prediction))
        if start.prediction is not None:
            segment = node_of(start.prediction.segment)
            graphs.append(Graph(nodes=(segment,), edges=()))
            if at is not Towards.UP:
                graphs.append(self._go([segment], Direction.DOWN, ask))
        elif at is not Towards.UP:
            graphs.append(self._go(seeds, Direction.DOWN, ask))
        return _merge(graphs)

    def _own_release(self, graph: Graph, found: PredictionView | None) -> Graph:
        """Leave out the releases of a prediction's version that did not let this answer through."""
        if found is None:
            return graph
        row, segment = found.row, found.segment
        own = find_admitting(self._view, segment.deployment, row.version, row.epoch)
        others = {
            edge.source
            for edge in graph.edges
            if edge.relation == "released"
            and edge.target == f"model_version:{row.version}"
            and (own is None or edge.source != node_of(own))
        }
        return Graph(
            nodes=tuple(node for node in graph.nodes if node not in others),
            edges=tuple(edge for edge in graph.edges if edge.source not in others),
            truncated=graph.truncated,
        )

    def _go(self, seeds: list[str], direction: Direction, ask: ShowLineage) -> Graph:
        return walk(
            self._view.tx,
            seeds,
            direction,
            project=self._view.project,
            limit=ask.limit,
            depth=ask.depth,
            against=EVIDENCE if direction is Direction.UP else frozenset(),
        )

    def _node(self, ref: str) -> Node:
        kind, _, key = ref.partition(":")
        if kind in LEAVES:
            return self._leaf(ref, kind, key)
        try:
            row = get_row(self._view, ref)
        except UNREADABLE as error:
            return Node(ref=ref, title=kind, verified=False, problem=_words(error))
        if row is None:
            return self._gone(ref, kind, key)
        thing = describe(row, self._view)
        verdict = verify_row(row, self._view, self._prover, is_deep=self._is_deep)
        return Node(
            ref=ref,
            title=thing.title,
            digest=thing.digest,
            verified=verdict.verified,
            problem=verdict.problem,
            facts=thing.facts,
            entries=tuple(entries_about(self._view.tx, ref, limit=ENTRIES_A_NODE)),
        )

    def _gone(self, ref: str, kind: str, key: str) -> Node:
        """Tell what was purged, which the ledger knows, from what somebody took away."""
        entries = tuple(entries_about(self._view.tx, ref, limit=ENTRIES_A_NODE))
        try:
            for number in entries:
                payload = self._prover.payload(number)
                for change in payload.changes if payload else ():
                    if (change.kind, change.key) == (kind, key) and change.op == "delete":
                        why = f"it was purged (entry {number})"
                        return Node(ref=ref, title=f"purged {kind}", problem=why, entries=entries)
        except UNREADABLE as error:
            return Node(ref=ref, title=kind, verified=False, problem=_words(error))
        return Node(
            ref=ref, title=kind, verified=False, problem="its record is gone", entries=entries
        )

    def _leaf(self, ref: str, kind: str, key: str) -> Node:
        if kind == "commit":
            return Node(ref=ref, title=f"code at {key[:12]}", facts={"commit": key})
        if kind == "source":
            return Node(ref=ref, title="source of the data", digest=key)
        verdict, size = verify_blob(self._view, key, is_deep=self._is_deep)
        return Node(
            ref=ref,
            title="stored bytes",
            digest=key,
            verified=verdict.verified,
            problem=verdict.problem,
            facts=facts_of(size_bytes=size),
        )

    def _prediction_node(self, found: PredictionView) -> Node:
        row, proof = found.row, found.proof
        verdict = _verify_prediction(found)
        segment = node_of(found.segment)
        return Node(
            ref=f"prediction:{row.id}",
            title="prediction" if row.output is None else f"prediction {row.output:g}",
            digest=f"sha256:{merkle.leaf_hash(canonical_json(row)).hex()}",
            verified=verdict.verified,
            problem=verdict.problem,
            facts=facts_of(
                at=row.at,
                logged_at=row.logged_at,
                arm=row.arm.value,
                status=row.status.value,
                output=row.output,
                label=found.label,
                unit=row.unit,
                proof=f"row {proof.index} of {proof.size} in {segment}, {len(proof.path)} hashes",
                **{f"input {name}": value for name, value in row.inputs.items()},
            ),
            entries=tuple(entries_about(self._view.tx, segment, limit=ENTRIES_A_NODE)),
        )

    def _link(self, edge: Edge) -> Link:
        verdict = verify_row(edge, self._view, self._prover, is_deep=False)
        return Link(
            source=edge.source,
            relation=edge.relation,
            target=edge.target,
            verified=verdict.verified,
        )

    def _entry(self, number: int) -> tuple[EntryLine | None, str | None]:
        """Return an entry in short, and why it does not verify."""
        problem = None
        payload = None
        try:
            entry = self._prover.entry(number)
        except UNREADABLE as error:
            return None, f"entry:{number}: {_words(error)}"
        try:
            self._prover.prove(number)
            payload = self._prover.payload(number)
        except UNREADABLE as error:
            problem = f"entry:{number}: {_words(error)}"
        return line_of(self._view, entry, payload), problem

    def _consents(self, refs: Iterable[str]) -> tuple[Consent, ...]:
        found: list[Consent] = []
        for ref in refs:
            kind, _, key = ref.partition(":")
            version = self._view.find(ModelVersion, Id(key)) if kind == "model_version" else None
            if version is not None:
                found += consents_of(self._view, version)
        return tuple(found)


def consents_of(view: View, version: ModelVersion) -> list[Consent]:
    """Return the approvals and waivers of a version, oldest first."""
    counting = {approval.id for approval in approvals_of(view, version)}
    ref = node_of(version)
    approvals = [
        Consent(
            version=ref,
            kind="approval",
            by=actor_name(view, row.approver),
            at=row.at,
            words=row.comment,
            counts=row.id in counting,
        )
        for row in view.select(Approval, *where(version=version.id))
    ]
    waivers = [
        Consent(
            version=ref,
            kind="waiver",
            by=actor_name(view, row.who),
            at=row.when,
            words=row.why,
            counts=row.artifact == version.artifact,
        )
        for row in view.select(Waiver, *where(version=version.id))
    ]
    return sorted(approvals + waivers, key=lambda consent: consent.at)


def _verify_prediction(found: PredictionView) -> Verdict:
    """Verify the row against the root of its segment; the segment's own node proves the root."""
    proof = found.proof
    path = [bytes.fromhex(part) for part in proof.path]
    root = bytes.fromhex(found.segment.root.removeprefix("sha256:"))
    leaf = merkle.leaf_hash(canonical_json(found.row))
    if merkle.verify_inclusion(proof.index, proof.size, leaf, path, root):
        return Verdict(verified=True)
    return Verdict(verified=False, problem="its row is not in the sealed segment")


def _prediction_links(found: PredictionView) -> list[Link]:
    node = f"prediction:{found.row.id}"
    # Both are said by the row itself, which its segment's root proves.
    return [
        Link(source=node, relation="sealed_in", target=node_of(found.segment), verified=True),
        Link(
            source=node,
            relation="answered_by",
            target=f"model_version:{found.row.version}",
            verified=True,
        ),
    ]


def _merge(graphs: list[Graph]) -> Graph:
    edges = {edge.id: edge for graph in graphs for edge in graph.edges}
    return Graph(
        nodes=tuple(dict.fromkeys(node for graph in graphs for node in graph.nodes)),
        edges=tuple(edges.values()),
        truncated=any(graph.truncated for graph in graphs),
    )


def _words(error: BaseException) -> str:
    return str(getattr(error, "message", error))[:300]
