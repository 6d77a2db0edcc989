"""A limit: granian's own interface (RSGI), msgspec and ONNX Runtime; or an echo."""

import os

import msgspec

HEADERS = [("content-type", "application/json")]
ECHO = b'{"outputs":[0.5]}'


class Rows(msgspec.Struct):
    rows: list[list[float]]


decoder = msgspec.json.Decoder(Rows)
encoder = msgspec.json.Encoder()

if "MODEL" in os.environ:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(os.environ["MODEL"], options)


async def predict(scope, protocol):
    if scope.method == "GET":
        protocol.response_bytes(200, HEADERS, b"{}")
        return
    asked = decoder.decode(await protocol())
    (found,) = session.run(None, {"input": np.array(asked.rows, dtype=np.float32)})
    answer = encoder.encode({"outputs": found.ravel().tolist()})
    protocol.response_bytes(200, HEADERS, answer)


async def echo(scope, protocol):
    await protocol()
    protocol.response_bytes(200, HEADERS, ECHO)


async def echo_body(scope, protocol):
    protocol.response_bytes(200, HEADERS, await protocol())
