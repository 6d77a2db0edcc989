"""What the serving platforms ask a container: KServe's V1, Vertex AI's and Azure ML's contracts.

Each is a few lines over the same core. Vertex AI names its paths in variables of the process
(``AIP_HEALTH_ROUTE``, ``AIP_PREDICT_ROUTE``), so the routes are made with what was found there.
"""

from __future__ import annotations

import msgspec

from everloop.core.errors import EverloopError, InvalidInput
from everloop.serve.ask import Ask, Result
from everloop.serve.decode import Values
from everloop.serve.dispatch import Route
from everloop.serve.environment import Found
from everloop.serve.exchange import (
    JSON,
    TEXT,
    Answer,
    Reply,
    Request,
    extra_headers,
    require_json,
    status_of,
    to_json,
)
from everloop.serve.explain import Explainer
from everloop.serve.protocol import Explanation
from everloop.serve.protocols.asking import make_ask, with_headers
from everloop.serve.protocols.frames import Frames, read_json
from everloop.serve.protocols.invocations import read_formats
from everloop.serve.service import Endpoint, Service, told


def refuse(error: EverloopError) -> Reply:
    """Return an error as KServe says it: one text."""
    status = status_of(error)
    body = msgspec.json.encode({"error": told(error)})
    return Reply(status, body, JSON, extra_headers(error, status))


def routes(service: Service, found: Found, explainer: Explainer) -> list[Route]:
    """Return the addresses of the platforms, those that this process was told included."""
    spoken = Platforms(service, explainer)
    made = [
        Route("GET", "/v1/models", spoken.models, refuse),
        Route("GET", "/v1/models/{model}", spoken.model, refuse),
        Route("POST", "/v1/models/{model}:predict", spoken.predict, refuse),
        Route("POST", "/v1/models/{model}:explain", spoken.explain, refuse),
        Route("POST", "/score", spoken.score, refuse),
    ]
    if found.health_path:
        made.append(Route("GET", found.health_path, spoken.health, refuse))
    if found.predict_path:
        made.append(Route("POST", found.predict_path, spoken.predict, refuse))
    return made


class Platforms:
    """The handlers."""

    def __init__(self, service: Service, explainer: Explainer) -> None:
        self._service = service
        self._explainer = explainer

    def models(self, request: Request) -> Reply:
        """List the models (KServe V1)."""
        del request
        return to_json({"models": sorted(self._service.endpoints)})

    def model(self, request: Request) -> Reply:
        """Say whether a model answers (KServe V1)."""
        endpoint = self._service.find(request.params["model"])
        is_ready = endpoint.lineup.champion is not None and not self._service.is_draining
        body = msgspec.json.encode({"name": endpoint.name, "ready": is_ready})
        return Reply(200 if is_ready else 503, body)

    def health(self, request: Request) -> Reply:
        """Answer 200 while requests are welcome (Vertex AI)."""
        del request
        service = self._service
        is_ready = service.is_ready(service.endpoints.values())
        return Reply(200, b"ok\n", TEXT) if is_ready else Reply(503, b"not ready\n", TEXT)

    def predict(self, request: Request) -> Answer:
        """Answer ``instances`` by ``predictions`` of the same number and order (KServe, Vertex)."""
        endpoint = self._service.chosen(request)
        return endpoint.answer(self._ask_instances(endpoint, request), _encode)

    def explain(self, request: Request) -> Answer:
        """Answer ``instances`` by ``explanations`` (KServe V1), and the predictions beside them."""
        endpoint = self._service.chosen(request)
        ask = self._ask_instances(endpoint, request)
        return self._explainer.answer(endpoint, ask, True, _encode_explained)

    def score(self, request: Request) -> Answer:
        """Answer rows as Azure ML's clients send them.

        ``input_data`` (a frame that was split, rows or columns) is answered by a bare list, as
        Azure ML answers for models of MLflow; MLflow's own formats are answered as MLflow does.
        """
        endpoint = self._service.chosen(request)
        body = read_object(request)
        is_bare = "input_data" in body
        extras = body.get("params", body.get("parameters"))
        ask = make_ask(
            self._service, endpoint, request, lambda frames: _read_azure(frames, body), extras
        )
        return endpoint.answer(ask, _encode_bare if is_bare else _encode)

    def _ask_instances(self, endpoint: Endpoint, request: Request) -> Ask:
        body = read_object(request)
        return make_ask(
            self._service,
            endpoint,
            request,
            lambda frames: read_instances(frames, body),
            body.get("parameters"),
        )


def read_object(request: Request) -> dict[str, object]:
    """Return the JSON object of a request.

    Raises:
        InvalidInput: ``request.malformed`` or ``request.invalid``.
    """
    require_json(request)
    body = read_json(request.body)
    if isinstance(body, dict):
        return body
    raise InvalidInput(
        "request.invalid", "The body is no JSON object.", hint='Send {"instances": [...]}.'
    )


def read_instances(frames: Frames, body: dict[str, object]) -> Values:
    """Return the rows under ``instances``, or under ``inputs`` as newer KServe clients send them.

    Raises:
        InvalidInput: ``request.invalid``.
        LimitExceeded: ``request.too_many_rows``.
    """
    name = "inputs" if "instances" not in body and "inputs" in body else "instances"
    if name not in body:
        raise InvalidInput(
            "request.invalid", "There are no `instances`.", hint='Send {"instances": [...]}.'
        )
    return frames.from_rows(body[name], f"$.{name}")


def _read_azure(frames: Frames, body: dict[str, object]) -> Values:
    if "input_data" not in body:
        return read_formats(frames, body)
    data, place = body["input_data"], "$.input_data"
    if not isinstance(data, dict):
        return frames.from_rows(data, place)
    if "data" in data and "columns" in data:
        return frames.from_split(data["columns"], data["data"], place)
    return frames.from_columns(data, place)


def _encode(result: Result) -> Reply:
    return with_headers(msgspec.json.encode({"predictions": result.outputs.tolist()}), result)


def _encode_bare(result: Result) -> Reply:
    return with_headers(msgspec.json.encode(result.outputs.tolist()), result)


def _encode_explained(result: Result, why: Explanation) -> Reply:
    about = {"method": why.method, "scale": why.scale, "base": why.base}
    explanations = [{**about, "values": row.values, "errors": row.errors} for row in why.rows]
    body = {"explanations": explanations, "predictions": result.outputs.tolist()}
    return with_headers(msgspec.json.encode(body), result)
