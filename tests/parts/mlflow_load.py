"""Loads one model by its address and asks it; prints whether that went well, as JSON."""

from __future__ import annotations

import json
import sys
import warnings

warnings.simplefilter("ignore")

import mlflow  # noqa: E402
import pandas as pd  # type: ignore[import-untyped]  # noqa: E402


def main() -> None:
    """Load the model named on the command line."""
    try:
        model = mlflow.pyfunc.load_model(sys.argv[1])
        answers = model.predict(pd.DataFrame({"a": [0.5], "b": [0.25]}))
    except Exception as error:  # noqa: BLE001 -- whatever it was, the test shows it
        print(json.dumps({"loaded": False, "why": str(error)[-1_000:]}))
        return
    print(json.dumps({"loaded": True, "answers": [float(answer) for answer in answers]}))


if __name__ == "__main__":
    main()
