"""Questions about edge bundles, and their bytes."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from everloop.core.digest import Digest
from everloop.core.errors import NotFound
from everloop.core.ports import where
from everloop.edge.model import EdgeBundle
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.registry.evidence import EVALUATOR

PART_BYTES = 4 * 1024 * 1024


class EdgeBundleView(Struct, frozen=True, kw_only=True):
    """A bundle with the names of what is in it."""

    bundle: EdgeBundle
    model: str
    version: str


class EdgeBundleList(Struct, frozen=True, kw_only=True):
    """One page of bundles, newest first."""

    items: tuple[EdgeBundleView, ...]
    next: str | None = None


class ListEdge(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which page of the bundles to list."""

    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100
    after: Annotated[str, Meta(max_length=100)] | None = None


class FetchEdge(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which part of a bundle's file to send.

    Attributes:
        digest: SHA-256 of the file.
        offset: Where the part begins.
    """

    digest: Annotated[Digest, Meta(max_length=80)]
    offset: Annotated[int, Meta(ge=0, le=1 << 40)] = 0


class EdgePart(Struct, frozen=True, kw_only=True):
    """A part of a file, and how large the whole is."""

    data: bytes
    offset: int
    size_bytes: int


class ShowKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for the key that devices trust."""


class EdgeKey(Struct, frozen=True, kw_only=True):
    """The public key, in hex, with which bundles and offers are signed."""

    key: str


@query("edge.list", permission="edge:read")
def list_edge(ask: ListEdge, view: View) -> EdgeBundleList:
    """List the bundles that were sealed for devices, newest first."""
    rows, following = view.page(EdgeBundle, limit=ask.limit, after=ask.after, descending=True)
    return EdgeBundleList(items=tuple(view_bundle(row) for row in rows), next=following)


@query("edge.fetch", permission="edge:read")
def fetch_edge(ask: FetchEdge, view: View) -> EdgePart:
    """Send a part of a bundle's file.

    Raises:
        NotFound: ``edge_bundle.not_found``.
    """
    return read_part(view, get_bundle(view, ask.digest), ask.offset)


@query("edge.key", permission="edge:read")
def show_key(ask: ShowKey, view: View) -> EdgeKey:
    """Show the public key that devices are given when they are enrolled."""
    del ask
    return EdgeKey(key=view.services.signers[EVALUATOR].public_key.hex())


def get_bundle(view: View, digest: Digest) -> EdgeBundle:
    """Return the bundle whose file has this SHA-256.

    Raises:
        NotFound: ``edge_bundle.not_found``.
    """
    found = view.first(EdgeBundle, *where(digest=digest))
    if found is None:
        raise NotFound(
            "edge_bundle.not_found",
            f"There is no edge bundle {digest[:80]!r}.",
            hint="Seal one with `everloop export edge MODEL -o FILE`.",
        )
    return found


def read_part(view: View, bundle: EdgeBundle, offset: int) -> EdgePart:
    """Return up to four mebibytes of a bundle's file."""
    data = view.services.blobs.get(bundle.content)
    return EdgePart(data=data[offset : offset + PART_BYTES], offset=offset, size_bytes=len(data))


def view_bundle(bundle: EdgeBundle) -> EdgeBundleView:
    """Return a bundle with the names of what is in it."""
    return EdgeBundleView(bundle=bundle, model=bundle.name, version=bundle.semver)
