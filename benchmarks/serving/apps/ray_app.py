"""Ray Serve over the framework's ``predict``, one replica."""

import os
import signal
import sys

import lightgbm
import numpy as np
import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 1}, max_ongoing_requests=256)
class Predictor:
    def __init__(self, model: str) -> None:
        self.booster = lightgbm.Booster(model_file=model)

    async def __call__(self, request: Request) -> dict[str, list[float]]:
        if request.method == "GET":
            return {"outputs": []}
        asked = np.array((await request.json())["rows"])
        return {"outputs": self.booster.predict(asked, num_threads=1).tolist()}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, configure_logging=True, logging_level="warning")
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Predictor.bind(os.environ["MODEL"]), route_prefix="/predict")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
