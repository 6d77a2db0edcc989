"""Ask a model with Triton's client: `python ask_with_triton.py 127.0.0.1:8080 bikes`."""

import sys

import numpy as np
import tritonclient.http as triton

address, model = sys.argv[1:3]
client = triton.InferenceServerClient(address)

inputs = []
for name, datatype, values in (
    ("hour", "INT64", np.array([8, 17])),
    ("temperature", "FP64", np.array([21.5, np.nan])),
    ("working_day", "BOOL", np.array([True, False])),
    ("weather", "BYTES", np.array(["rain", "clear"], dtype=object)),
):
    tensor = triton.InferInput(name, [2, 1], datatype)
    tensor.set_data_from_numpy(values.reshape(2, 1))
    inputs.append(tensor)

answer = client.infer(model, inputs, parameters={"unit": "ann", "keys": ["k1", "k2"]})
print(answer.as_numpy("rentals"))
print(answer.get_response()["parameters"]["prediction_id"])
