"""What Triton's client is made to do: run by its own Python, knows nothing of ours.

Prints one line of JSON. Arguments: the protocol (http or grpc), the address, the token.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

MODEL = "bikes"


def rows(count: int) -> dict[str, np.ndarray[Any, Any]]:
    place = np.arange(count)
    temperature = (place * 0.7 - 3.0).astype(np.float64)
    temperature[1::7] = np.nan
    names = np.array(["clear", "mist", "rain", "snow", "größer als hail"], dtype=object)
    return {
        "hour": (place % 24).astype(np.int64),
        "temperature": temperature,
        "working_day": place % 3 > 0,
        "weather": names[place % 5],
    }


def columns(module: Any, count: int, **how: Any) -> list[Any]:
    kinds = {"hour": "INT64", "temperature": "FP64", "working_day": "BOOL", "weather": "BYTES"}
    made = []
    for name, values in rows(count).items():
        is_json = bool(how) and not how["binary_data"]
        # The client's JSON has no word for NaN.
        told = np.nan_to_num(values) if is_json and name == "temperature" else values
        tensor = module.InferInput(name, [count, 1], kinds[name])
        tensor.set_data_from_numpy(told.reshape(count, 1), **how)
        made.append(tensor)
    return made


def matrix(module: Any, dtype: type[np.generic], datatype: str, **how: Any) -> list[Any]:
    values = (np.arange(12).reshape(3, 4) * 0.1 + [[0, 20, 0, 1]]).astype(dtype)
    values[:, 0] = np.floor(values[:, 0])
    values[:, 2] = [0, 1, 1]
    tensor = module.InferInput("input-0", [3, 4], datatype)
    tensor.set_data_from_numpy(values, **how)
    return [tensor]


def refusal(call: Any) -> list[str]:
    try:
        call()
    except Exception as error:  # noqa: BLE001 -- whatever the client makes of it is the finding
        return [type(error).__name__, str(error)]
    return ["none", ""]


def ask(client: Any, module: Any, headers: dict[str, str], way: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL),
        "version_ready": client.is_model_ready(MODEL, "1.1.0"),
        "nobody_ready": client.is_model_ready("nobody"),
    }
    more: dict[str, Any] = {"headers": headers} | ({"as_json": True} if way == "grpc" else {})
    found["server"] = client.get_server_metadata(**more)
    found["model"] = client.get_model_metadata(MODEL, **more)
    found["index"] = client.get_model_repository_index(**more)

    def infer(inputs: list[Any], **options: Any) -> Any:
        # The client writes into the headers it is given.
        return client.infer(options.pop("model", MODEL), inputs, headers=dict(headers), **options)

    many = infer(columns(module, 40), request_id="forty", sequence_id=3, priority=1)
    found["rows"] = many.as_numpy("rentals").tolist()
    found["id"] = many.get_response(**({"as_json": True} if way == "grpc" else {}))["id"]
    wanted = [module.InferRequestedOutput("rentals")]
    found["named"] = infer(columns(module, 2), outputs=wanted).as_numpy("rentals").tolist()
    versioned = infer(columns(module, 2), model_version="1.1.0")
    found["versioned"] = versioned.as_numpy("rentals").tolist()
    for dtype, datatype in ((np.float64, "FP64"), (np.float32, "FP32"), (np.float16, "FP16")):
        answer = infer(matrix(module, dtype, datatype), model="plain")
        found[datatype] = answer.as_numpy("rentals").tolist()
    if way == "http":
        plain = [module.InferRequestedOutput("rentals", binary_data=False)]
        in_json = infer(columns(module, 40, binary_data=False), outputs=plain)
        found["json"] = in_json.as_numpy("rentals").tolist()
        for packing in ("gzip", "deflate"):
            packed = infer(
                columns(module, 2_000),
                request_compression_algorithm=packing,
                response_compression_algorithm=packing,
            )
            found[packing] = packed.as_numpy("rentals").tolist()
    else:
        found["async"] = ask_later(client, module, headers)
        found["packed"] = (
            infer(columns(module, 40), compression_algorithm="gzip").as_numpy("rentals").tolist()
        )
    wrong = module.InferInput("hour", [1, 1], "FP64")
    wrong.set_data_from_numpy(np.array([[1.0]]))
    found["wrong"] = refusal(lambda: infer([wrong, *columns(module, 1)[1:]]))
    found["nobody"] = refusal(lambda: infer(columns(module, 1), model="nobody"))
    found["no_version"] = refusal(lambda: infer(columns(module, 1), model_version="9"))
    no_output = [module.InferRequestedOutput("price")]
    found["no_output"] = refusal(lambda: infer(columns(module, 1), outputs=no_output))
    found["no_token"] = refusal(lambda: client.infer(MODEL, columns(module, 1)))
    found["load"] = refusal(lambda: client.load_model(MODEL, headers=headers))
    found["unload"] = refusal(lambda: client.unload_model(MODEL, headers=headers))
    found["index_after"] = client.get_model_repository_index(**more)
    found["load_again"] = refusal(lambda: client.load_model(MODEL, headers=headers))
    found["ready_again"] = client.is_model_ready(MODEL)
    return found


def ask_later(client: Any, module: Any, headers: dict[str, str]) -> Any:
    import threading

    told: list[Any] = []
    is_done = threading.Event()

    def keep(result: Any, error: Any) -> None:
        told.append(str(error) if error else result.as_numpy("rentals").tolist())
        is_done.set()

    client.async_infer(MODEL, columns(module, 2), keep, headers=headers, client_timeout=30)
    assert is_done.wait(30)
    return told[0]


def main(way: str, address: str, token: str) -> None:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    if way == "http":
        import tritonclient.http as module

        client = module.InferenceServerClient(address)
    else:
        import tritonclient.grpc as module

        client = module.InferenceServerClient(address)
    try:
        print(json.dumps(ask(client, module, headers, way)))
    finally:
        client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
