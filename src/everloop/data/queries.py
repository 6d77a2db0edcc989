"""Questions about datasets, and the one way to turn a ref into a version."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from everloop.core.clock import Instant
from everloop.core.errors import IntegrityError, NotFound
from everloop.core.ids import Id, is_id
from everloop.core.ports import where
from everloop.core.refs import parse_ref
from everloop.data.model import Dataset, DatasetVersion
from everloop.data.profile import Profile
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query

RefText = Annotated[str, Meta(min_length=1, max_length=300)]
Limit = Annotated[int, Meta(ge=1, le=1_000)]
Cursor = Annotated[str, Meta(max_length=100)]
_HIGHEST_DIGITS = 9


class ListDatasets(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which page of the datasets to list."""

    limit: Limit = 100
    after: Cursor | None = None


class DatasetSummary(Struct, frozen=True, kw_only=True):
    """A dataset and its latest version in short."""

    id: Id
    name: str
    created_at: Instant
    versions: int
    rows: int | None
    size_bytes: int
    updated_at: Instant


class DatasetList(Struct, frozen=True, kw_only=True):
    """One page of datasets; ``next`` is the cursor of the page after it."""

    items: tuple[DatasetSummary, ...]
    next: str | None = None


class ListVersions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The dataset whose versions to list, newest first."""

    name: RefText
    limit: Limit = 100
    after: Cursor | None = None


class DatasetVersionList(Struct, frozen=True, kw_only=True):
    """One page of versions; ``next`` is the cursor of the page after it."""

    items: tuple[DatasetVersion, ...]
    next: str | None = None


class ShowDataset(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A dataset version by ref: ``bike``, ``bike@3``, ``dataset:bike@3`` or its id."""

    ref: RefText


class ProfileAnswer(Struct, frozen=True, kw_only=True):
    """The profile of a version."""

    version: Id
    name: str
    number: int
    profile: Profile


@query("data.list", permission="data:read")
def list_datasets(ask: ListDatasets, view: View) -> DatasetList:
    """List the datasets of the project, oldest first."""
    page, more = view.page(Dataset, limit=ask.limit, after=ask.after)
    return DatasetList(items=tuple(summarise(view, dataset) for dataset in page), next=more)


@query("data.versions", permission="data:read")
def list_versions(ask: ListVersions, view: View) -> DatasetVersionList:
    """List the versions of a dataset, newest first."""
    dataset = get_dataset(view, parse_ref(ask.name, kind="dataset").name)
    page, more = view.page(
        DatasetVersion,
        *where(dataset=dataset.id),
        order="number",
        descending=True,
        limit=ask.limit,
        after=ask.after,
    )
    return DatasetVersionList(items=tuple(page), next=more)


@query("data.show", permission="data:read")
def show_dataset(ask: ShowDataset, view: View) -> DatasetVersion:
    """Show one version of a dataset, the latest when the ref names none."""
    return resolve_dataset(view, ask.ref)


@query("data.profile", permission="data:read")
def show_profile(ask: ShowDataset, view: View) -> ProfileAnswer:
    """Show the profile of one version: counts, moments, bins and categories by column."""
    version = resolve_dataset(view, ask.ref)
    if version.profile is None:
        raise NotFound(
            "data.profile_missing",
            f"{version.name}@{version.number} holds files that are no table, so it has no profile.",
            hint="Commit Parquet or CSV files to get one.",
        )
    data = view.services.blobs.get(version.profile)
    try:
        profile = msgspec.json.decode(data, type=Profile)
    except msgspec.DecodeError as error:
        raise IntegrityError(
            "data.profile_unreadable",
            f"The profile of {version.name}@{version.number} is not one: {error}.",
            hint="Run `everloop audit verify`; commit the data again to make a new profile.",
        ) from error
    return ProfileAnswer(
        version=version.id, name=version.name, number=version.number, profile=profile
    )


def find_dataset(view: View, name: str) -> Dataset | None:
    """Return the dataset of that name, or None."""
    return view.first(Dataset, *where(name=name))


def get_dataset(view: View, name: str) -> Dataset:
    """Return the dataset of that name.

    Raises:
        NotFound: ``dataset.not_found``.
    """
    found = find_dataset(view, name)
    if found is None:
        raise NotFound(
            "dataset.not_found",
            f"There is no dataset {name[:60]!r}.",
            hint="List them with `everloop data list`.",
        )
    return found


def latest_version(view: View, dataset: Id) -> DatasetVersion | None:
    """Return the newest version of a dataset, or None before the first."""
    found = view.select(
        DatasetVersion, *where(dataset=dataset), order="number", descending=True, limit=1
    )
    return found[0] if found else None


def resolve_dataset(view: View, text: str) -> DatasetVersion:
    """Return the version that a ref or an id names; without a number, the newest.

    Raises:
        InvalidInput: ``ref.invalid``.
        NotFound: ``dataset.not_found`` or ``dataset_version.not_found``.
    """
    bare = text.removeprefix("dataset_version:").removeprefix("dataset:")
    if is_id(bare):
        return view.get(DatasetVersion, Id(bare))
    ref = parse_ref(text, kind="dataset")
    dataset = get_dataset(view, ref.name)
    if ref.selector in {None, "latest"}:
        found = latest_version(view, dataset.id)
    elif ref.selector.isascii() and ref.selector.isdigit() and len(ref.selector) <= _HIGHEST_DIGITS:
        found = view.first(DatasetVersion, *where(dataset=dataset.id, number=int(ref.selector)))
    else:
        found = None
    if found is None:
        raise NotFound(
            "dataset_version.not_found",
            f"Dataset {ref.name!r} has no version {ref.selector or 'yet'!r}.",
            hint=f"List its versions with `everloop data versions {ref.name}`.",
        )
    return found


def summarise(view: View, dataset: Dataset) -> DatasetSummary:
    """Return a dataset in short."""
    latest = latest_version(view, dataset.id)
    return DatasetSummary(
        id=dataset.id,
        name=dataset.name,
        created_at=dataset.created_at,
        versions=latest.number if latest else 0,
        rows=latest.rows if latest else None,
        size_bytes=latest.size_bytes if latest else 0,
        updated_at=latest.created_at if latest else dataset.created_at,
    )
