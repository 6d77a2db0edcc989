"""Model versions over MLflow's REST interface: made of a source, sealed, noted, staged, found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from everloop.core.digest import Digest
from everloop.core.errors import InvalidInput
from everloop.core.ids import Id
from everloop.data.model import DatasetVersion
from everloop.data.queries import ShowDataset
from everloop.interop.mlflow.logged_models import (
    file_among,
    files_within,
    sealed,
)
from everloop.interop.mlflow.places import Place, address_invalid
from everloop.interop.mlflow.registered_models import refuse_prompts
from everloop.interop.mlflow.registry_words import (
    RUN_LINK,
    collect,
    get_whole_model,
    get_whole_version,
    read_filter,
    read_limit,
    read_number,
    read_stage,
    require_name,
    to_version,
    version_uri,
)
from everloop.interop.mlflow.routing import Context, Json, Route
from everloop.interop.mlflow.sources import find_source
from everloop.interop.mlflow.words import Pair, to_texts
from everloop.registry.formats import require_sealed
from everloop.registry.lifecycle import NameVersion, StageVersion, UpdateVersion
from everloop.registry.model import ModelVersion, VersionNotes
from everloop.registry.overview import ShowVersions, WholeVersion, WholeVersions
from everloop.registry.queries import ResolveModel
from everloop.registry.sealing import SealModel
from everloop.registry.search import FoundVersions, SearchVersions

MOST_RESULTS: Final = 200_000
DEFAULT_RESULTS: Final = 10_000
DATASET: Final = "everloop.dataset"
HOLDOUT: Final = "everloop.holdout"


class _Ask(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Create(_Ask, frozen=True, kw_only=True):
    """Body of ``model-versions/create``."""

    name: str = ""
    source: str = ""
    run_id: str = ""
    tags: tuple[Pair, ...] = ()
    run_link: str = ""
    description: str = ""
    model_id: str = ""


class ByNumber(_Ask, frozen=True, kw_only=True):
    """Query or body that names a version."""

    name: str = ""
    version: str = ""


class Update(ByNumber, frozen=True, kw_only=True):
    """Body of ``model-versions/update``."""

    description: str | None = None


class Transition(ByNumber, frozen=True, kw_only=True):
    """Body of ``model-versions/transition-stage``."""

    stage: str = ""
    archive_existing_versions: bool = False


class SetTag(ByNumber, frozen=True, kw_only=True):
    """Body of ``model-versions/set-tag``."""

    key: str = ""
    value: str = ""


class DeleteTag(ByNumber, frozen=True, kw_only=True):
    """Body of ``model-versions/delete-tag``."""

    key: str = ""


class Search(_Ask, frozen=True, kw_only=True):
    """Query of ``model-versions/search``."""

    filter: str = ""
    max_results: int = 0
    order_by: tuple[str, ...] = ()
    page_token: str = ""


def create(context: Context, ask: Create) -> Json:
    """Register the files at a source as the next version of a model."""
    tags = to_texts(ask.tags)
    refuse_prompts(tags)
    get_whole_model(context, ask.name)
    source = find_source(context, ask.source, run=ask.run_id, model=ask.model_id)
    known = source.tags | tags
    told = SealModel(
        name=ask.name,
        logged_model=source.logged_model,
        run=source.run,
        folder=source.folder,
        version=source.version,
        source=ask.source,
        description=ask.description,
        tags=tags | ({RUN_LINK: ask.run_link} if ask.run_link else {}),
        dataset=_dataset(context, known.get(DATASET)),
        holdout=_dataset(context, known.get(HOLDOUT)),
    )
    version = context.perform("model.seal", told, ModelVersion)
    return _answer(context, ask.name, version.number)


def _dataset(context: Context, ref: str | None) -> Id | None:
    """Return the id of a dataset version that a tag names by its ref."""
    if not ref:
        return None
    return context.perform("data.show", ShowDataset(ref=ref), DatasetVersion).id


def _answer(context: Context, name: str, number: int) -> Json:
    return {"model_version": to_version(get_whole_version(context, name, str(number)))}


def _ref(ask: ByNumber) -> str:
    return f"{require_name(ask.name)}@{read_number(ask.version)}"


def get(context: Context, ask: ByNumber) -> Json:
    """Find a version."""
    return _answer(context, ask.name, read_number(ask.version))


def update(context: Context, ask: Update) -> Json:
    """Change a version's description."""
    told = UpdateVersion(version=_ref(ask), description=ask.description)
    context.perform("version.update", told, VersionNotes)
    return _answer(context, ask.name, read_number(ask.version))


def delete(context: Context, ask: ByNumber) -> Json:
    """Put a version into the trash; its number is never given again."""
    get_whole_version(context, ask.name, ask.version)  # one that is there already is not found
    context.perform("version.delete", NameVersion(version=_ref(ask)), VersionNotes)
    return {}


def search(context: Context, ask: Search) -> Json:
    """Find versions."""
    limit = read_limit(ask.max_results, MOST_RESULTS, DEFAULT_RESULTS)
    told = read_filter(ask.filter)
    if told is None:
        return {"model_versions": []}
    order = ", ".join((*(ask.order_by or ("updated_at DESC",)), "name", "number DESC"))

    def fetch(size: int, after: str | None) -> tuple[tuple[WholeVersion, ...], str | None]:
        wanted = SearchVersions(filter=told or "", order=order, limit=size, after=after)
        page = context.perform("version.search", wanted, FoundVersions)
        ids = tuple(item.version.id for item in page.items)
        return context.perform(
            "version.whole", ShowVersions(ids=ids), WholeVersions
        ).items, page.next

    found, following = collect(limit, ask.page_token, fetch)
    answer: Json = {"model_versions": [to_version(whole) for whole in found]}
    if following is not None:
        answer["next_page_token"] = following
    return answer


def download_uri(context: Context, ask: ByNumber) -> Json:
    """Return where a version's sealed files are read, once the ledger has proven the version."""
    whole = get_whole_version(context, ask.name, ask.version)
    known = ResolveModel(ref=whole.version.id)
    version = context.perform("model.resolve", known, ModelVersion)
    return {"artifact_uri": version_uri(version.name, version.number)}


def transition(context: Context, ask: Transition) -> Json:
    """Give a version another stage."""
    told = StageVersion(
        version=_ref(ask),
        stage=read_stage(ask.stage),  # type: ignore[arg-type]
        archive_others=ask.archive_existing_versions,
    )
    context.perform("version.stage", told, VersionNotes)
    return _answer(context, ask.name, read_number(ask.version))


def set_tag(context: Context, ask: SetTag) -> Json:
    """Set a tag of a version."""
    _require_key(ask.key)
    told = UpdateVersion(version=_ref(ask), tags={ask.key: ask.value})
    context.perform("version.update", told, VersionNotes)
    return {}


def delete_tag(context: Context, ask: DeleteTag) -> Json:
    """Take a tag from a version."""
    _require_key(ask.key)
    told = UpdateVersion(version=_ref(ask), untag=(ask.key,))
    context.perform("version.update", told, VersionNotes)
    return {}


def _require_key(key: str) -> None:
    if not key:
        raise InvalidInput("input.invalid", "The tag's key is missing.", hint="Send it as 'key'.")


@dataclass(frozen=True, slots=True)
class VersionPlace:
    """The files of a registered version, which never change."""

    version: ModelVersion

    def files(self, path: str) -> list[Json]:
        """Return what lies directly within a folder."""
        return files_within(self.version.files, path)

    def find(self, path: str) -> tuple[Digest, int]:
        """Return digest and size of a file, if the version still names what was registered."""
        require_sealed(self.version)
        return file_among(self.version.files, path)

    def admit(self, path: str) -> None:
        """Refuse every file."""
        del path
        raise self._sealed()

    def add(self, path: str, digest: Digest, size: int) -> None:
        """Refuse every file."""
        del path, digest, size
        raise self._sealed()

    def drop(self, path: str) -> None:
        """Refuse to remove anything."""
        del path
        raise self._sealed()

    def _sealed(self) -> Exception:
        return sealed(f"Version {self.version.number} of {self.version.name!r}")


def version_place(context: Context, parts: list[str]) -> tuple[Place, str]:
    """Return a version's folder, for ``registry/<name>/<number>/...``.

    Raises:
        InvalidInput: ``artifact.address_invalid``.
        NotFound: ``model.not_found`` or ``model_version.not_found``.
    """
    if len(parts) < 3:
        raise address_invalid("/".join(parts))
    whole = get_whole_version(context, parts[1], parts[2])
    return VersionPlace(whole.version), "/".join(parts[3:])


_AT: Final = "2.0/mlflow/model-versions"
ROUTES: tuple[Route, ...] = (
    Route("POST", f"{_AT}/create", create),
    Route("GET", f"{_AT}/get", get),
    Route("PATCH", f"{_AT}/update", update),
    Route("DELETE", f"{_AT}/delete", delete),
    Route("GET", f"{_AT}/search", search),
    Route("GET", f"{_AT}/get-download-uri", download_uri),
    Route("POST", f"{_AT}/transition-stage", transition),
    Route("POST", f"{_AT}/set-tag", set_tag),
    Route("DELETE", f"{_AT}/delete-tag", delete_tag),
)
