"""MLflow's REST interface, as an unmodified MLflow client speaks it.

Every route ends in verbs, so permission, lineage and ledger hold here as everywhere. Bytes of
artifacts stream to disk and are stored under their digest; a client never learns where.
"""

from __future__ import annotations

from everloop.interop.mlflow.application import MlflowApp, make_mlflow_app

__all__ = ["MlflowApp", "make_mlflow_app"]
