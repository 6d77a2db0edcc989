"""LitServe over the framework's ``predict``, one worker."""

import os
import sys

import lightgbm
import litserve
import numpy as np


class Predictor(litserve.LitAPI):
    def setup(self, device):
        self.booster = lightgbm.Booster(model_file=os.environ["MODEL"])

    def decode_request(self, request):
        return np.array(request["rows"])

    def predict(self, x):
        return self.booster.predict(x, num_threads=1)

    def encode_response(self, output):
        return {"outputs": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Predictor(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
