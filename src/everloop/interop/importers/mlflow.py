"""Opens an MLflow tracking address: a database, a server, or a folder."""

from __future__ import annotations

from pathlib import Path

from everloop.core.errors import InvalidInput
from everloop.interop.importers.source import Source


def open_mlflow(uri: str, artifacts: Path | None = None) -> Source:
    """Return the source behind an address as MLflow writes it.

    Raises:
        InvalidInput: ``import.source_invalid`` or ``import.database_unsupported``.
        NotAuthenticated: ``import.source_denied``.
        Unavailable: ``import.source_unavailable``.
    """
    if uri.startswith(("sqlite:", "postgresql:", "postgresql+", "postgres:")):
        from everloop.interop.importers.mlflow_sql import MlflowDatabase

        return MlflowDatabase(uri, artifacts)
    if uri.startswith(("http://", "https://")):
        from everloop.interop.importers.mlflow_rest import MlflowServer

        return MlflowServer(uri)
    if uri.startswith(("mysql", "mssql", "mariadb", "oracle")):
        raise InvalidInput(
            "import.database_unsupported",
            f"Of databases, SQLite and PostgreSQL are read, not {uri.partition(':')[0][:30]}.",
            hint="Start `mlflow server` on it and give the server's address: http://...",
        )
    folder = Path(uri.removeprefix("file://")) if uri else None
    if folder is not None and folder.is_dir():
        from everloop.interop.importers.mlflow_folder import MlflowFolder

        return MlflowFolder(folder)
    raise InvalidInput(
        "import.source_invalid",
        f"{uri[:200]!r} is no address of MLflow that can be read.",
        hint="Give sqlite:///file, postgresql://..., http://..., or the path of an mlruns folder.",
    )
