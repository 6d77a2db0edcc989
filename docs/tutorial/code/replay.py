"""Lives some days: asks the model for each hour, and tells it in the evening what was sold."""

from __future__ import annotations

import os
import sys
import time

from tables import HISTORY_DAYS, sell
from training import INPUTS, TARGET

import everloop
from everloop import PredictClient

SERVING = "http://127.0.0.1:7310/models/coffee"


def main(first_day: int, days: int, crowd: float, token: str) -> None:
    """Replay `days` days, beginning with a day after the history."""
    with PredictClient(SERVING, token) as predictor:
        for day in range(first_day, first_day + days):
            rows = sell(HISTORY_DAYS + day, 1, crowd=crowd).to_pylist()
            labels, errors, version = {}, [], ""
            for row in rows:
                inputs = {name: row[name] for name in INPUTS}
                answer = predictor.predict([inputs], at=row["at"]).predictions[0]
                labels[answer.id] = float(row[TARGET])
                errors.append(abs(answer.output - row[TARGET]))
                version = answer.version
            tell(labels)
            mean = sum(errors) / len(errors)
            print(f"day {day:3}  mean error {mean:5.2f} cups  {version[-6:]}", flush=True)


def tell(labels: dict[str, float]) -> None:
    """Send the truths; those of answers that are not sealed yet again a moment later."""
    while labels:
        receipt = everloop.add_feedback(labels, source="till")
        labels = {key: labels[key] for key in receipt.unknown}
        time.sleep(0.05)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), os.environ["TOKEN"])
