"""Sends one file to a server and fetches it back with our client; prints where, and the growth."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

from everloop.app.client import connect
from everloop.app.tracking import start_run
from everloop.track.files import FindFile
from everloop.track.model import ArtifactEntry


def main() -> None:
    """Move the file named first to the place named second."""
    large, back = Path(sys.argv[1]), Path(sys.argv[2])
    url, token = os.environ["MLFLOW_TRACKING_URI"], os.environ["MLFLOW_TRACKING_TOKEN"]
    with connect(url, project="demo", token=token) as client:
        run = start_run("large", client=client)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run.log_artifact(large)
        if not run.finish():
            sys.exit("it did not arrive")
        ask = FindFile(run=run.id, path=large.name)
        found = client.perform("run.file", ask, ArtifactEntry)
        with back.open("wb") as file:
            for piece in client.blobs.stream(found.digest):
                file.write(piece)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([str(back), (after - before) / 1024]))


if __name__ == "__main__":
    main()
