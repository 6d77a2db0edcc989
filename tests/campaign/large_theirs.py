"""Sends one file to a server and fetches it back with MLflow; prints where, and the growth."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import mlflow


def main() -> None:
    """Move the file named first below the folder named second."""
    large, back = Path(sys.argv[1]), Path(sys.argv[2])
    back.mkdir()
    with mlflow.start_run() as run:
        mlflow.log_text("warm", "warm.txt")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        mlflow.log_artifact(str(large))
    place = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path=large.name, dst_path=str(back)
    )
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print()
    print(json.dumps([place, (after - before) / 1024]))


if __name__ == "__main__":
    main()
