"""Asks a server of predictions through MLflow's own scoring client; prints what came, as JSON."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import pandas as pd  # type: ignore[import-untyped]  # noqa: E402
from mlflow.pyfunc.scoring_server.client import ScoringServerClient  # noqa: E402

ROW: dict[str, Any] = {"hour": 8, "temperature": 21.5, "working_day": True, "weather": "rain"}


def main() -> None:
    """Ask the server at the host and port of the command line."""
    client = ScoringServerClient(sys.argv[1], int(sys.argv[2]))
    client.wait_server_ready(timeout=20)
    frame = pd.DataFrame([ROW, ROW | {"temperature": float("nan")}])
    found: dict[str, Any] = {"version": client.get_version()}
    found["frame"] = client.invoke(frame).get_predictions().iloc[:, 0].tolist()
    found["params"] = client.invoke(frame, params={"unit": "ann"}).get_predictions().size
    found["list"] = client.invoke([list(ROW.values())]).get_predictions().iloc[:, 0].tolist()
    found["array"] = (
        client.invoke(np.array([list(ROW.values())], dtype=object))
        .get_predictions()
        .iloc[:, 0]
        .tolist()
    )
    body = {"dataframe_records": [ROW]}
    found["body"] = client.invoke(json.dumps(body)).get_predictions().iloc[:, 0].tolist()
    try:
        client.invoke(frame.drop(columns="weather"))
    except Exception as error:  # noqa: BLE001 -- whatever it was, the test shows it
        found["refused"] = str(error)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
