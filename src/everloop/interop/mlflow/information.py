"""What the server tells anybody: that it lives, which MLflow it speaks, what it offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.responses import JSONResponse, PlainTextResponse, Response

# The newest client whose answers were compared with a real server's.
SPOKEN_VERSION = "3.17.2"
_SERVER = {
    "store_type": "SqlStore",
    "workspaces_enabled": False,
    "trace_archival_enabled": False,
    "multipart_uploads_enabled": True,
    "multipart_downloads_enabled": False,
    "presigned_upload_run_id_supported": False,
    "presigned_upload_model_id_supported": False,
    "features_enabled": {"gateway": False},
}

OPEN: Mapping[str, Callable[[], Response]] = {
    "health": lambda: PlainTextResponse("OK"),
    "version": lambda: PlainTextResponse(SPOKEN_VERSION),
    "3.0/mlflow/server-info": lambda: JSONResponse(_SERVER),
}
