"""A limit: FastAPI and pydantic over ONNX Runtime, one thread."""

import os
import sys

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options)
app = FastAPI()


class Rows(BaseModel):
    rows: list[list[float]]


@app.get("/ready")
def ready() -> dict[str, bool]:
    return {"ready": True}


@app.post("/predict")
async def predict(asked: Rows) -> dict[str, list[float]]:
    (found,) = session.run(None, {"input": np.array(asked.rows, dtype=np.float32)})
    return {"outputs": found.ravel().tolist()}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
