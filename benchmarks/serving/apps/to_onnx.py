"""Convert the model to ONNX; runs in the environment of the limits."""

import sys
from pathlib import Path

import lightgbm
import onnxmltools
from onnxmltools.convert.common.data_types import FloatTensorType

booster = lightgbm.Booster(model_file=sys.argv[1])
kinds = [("input", FloatTensorType([None, booster.num_feature()]))]
converted = onnxmltools.convert_lightgbm(booster, initial_types=kinds, target_opset=15)
Path(sys.argv[2]).write_bytes(converted.SerializeToString())
