"""Third-party packages by name, version and the record of their installed files."""

from __future__ import annotations

from functools import lru_cache
from importlib import metadata

from everloop.core.digest import content_digest
from everloop.pipeline.source import OWN_PACKAGE


@lru_cache(maxsize=1_024)
def describe_package(module: str) -> tuple[str, str] | None:
    """Return the distribution of a top-level module and its version, or None when unknown.

    The version carries a digest of the installer's RECORD, so that another build of the same
    version is another version.
    """
    found = _find_distribution(module)
    if found is None and module == OWN_PACKAGE:
        return module, "source"
    if found is None:
        return None
    record = found.read_text("RECORD") or found.read_text("installed-files.txt") or ""
    short = content_digest(record.encode()).partition(":")[2][:12]
    return found.metadata["Name"], f"{found.version}+{short}"


def _find_distribution(module: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(module)
    except metadata.PackageNotFoundError:
        pass
    if module == OWN_PACKAGE:
        return None
    names = _by_module().get(module)
    return metadata.distribution(names[0]) if names else None


@lru_cache(maxsize=1)
def _by_module() -> dict[str, list[str]]:
    # Reads the file list of every installed package: only for names unlike their distribution's.
    return {name: sorted(found) for name, found in metadata.packages_distributions().items()}
