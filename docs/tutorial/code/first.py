"""Trains the first version and registers it."""

from __future__ import annotations

from training import TARGET, train

import everloop
from everloop import DatasetRef, ModelFiles, pipeline


@pipeline
def first(training: DatasetRef) -> ModelFiles:
    """Train on one version of a dataset."""
    return train(everloop.read(training.version))


if __name__ == "__main__":
    result = everloop.run_pipeline(first, {"training": DatasetRef("coffee@1")})
    version = everloop.register(
        "coffee",
        result.value,
        training="coffee@1",
        holdout="coffee-holdout@1",
        target=TARGET,
        run=result.run_id,
    )
    print(f"run:{result.run_id} made coffee@{version.version}")
