"""Plain JSON: rows as objects by the names of the signature. The protocol of our own client."""

from __future__ import annotations

import msgspec

from everloop.serve.ask import Ask, Result
from everloop.serve.decode import event_time
from everloop.serve.dispatch import Route
from everloop.serve.exchange import Answer, Reply, Request, require_json, to_json
from everloop.serve.explain import Explainer
from everloop.serve.lineup import no_model
from everloop.serve.protocol import Explanation, Health, ModelCard, PredictAnswer, Prediction
from everloop.serve.service import Endpoint, Service

_ENCODER = msgspec.json.Encoder()


def routes(service: Service, explainer: Explainer) -> list[Route]:
    """Return the addresses of this protocol; those without a name ask the only deployment."""
    spoken = Records(service, explainer)
    return [
        Route("POST", "/v1/predict", spoken.predict),
        Route("POST", "/models/{model}/predict", spoken.predict),
        Route("POST", "/models/{model}/versions/{version}/predict", spoken.predict),
        Route("GET", "/v1/model", spoken.model),
        Route("GET", "/models/{model}", spoken.model),
        Route("GET", "/models/{model}/healthz", spoken.health),
        Route("GET", "/models/{model}/readyz", spoken.ready),
        Route("GET", "/healthz", spoken.health),
        Route("GET", "/readyz", spoken.ready),
    ]


class Records:
    """The handlers of plain JSON."""

    def __init__(self, service: Service, explainer: Explainer) -> None:
        self._service = service
        self._explainer = explainer

    def predict(self, request: Request) -> Answer:
        """Answer rows."""
        endpoint = self._service.chosen(request)
        require_json(request)
        lineup = endpoint.lineup
        chosen = lineup.choose(request.params.get("version"))
        decoder = chosen.loaded.rows
        asked = decoder.decode(request.body)
        values = [msgspec.structs.astuple(row) for row in asked.inputs]
        ask = Ask(
            values=values,
            decoder=decoder,
            at_us=self._event_us(asked.at),
            unit=asked.unit,
            keys=asked.keys,
            version=chosen.named,
            lineup=lineup,
        )
        if asked.explain:
            return self._explainer.answer(
                endpoint, ask, asked.explain, lambda result, why: _encode(result, endpoint, why)
            )
        return endpoint.answer(ask, lambda result: _encode(result, endpoint))

    def model(self, request: Request) -> Reply:
        """Tell what the champion takes and gives."""
        endpoint = self._service.chosen(request)
        champion = endpoint.lineup.champion
        if champion is None:
            raise no_model()
        found = champion.loaded.bundle
        card = ModelCard(
            deployment=endpoint.lineup.deployment,
            model=found.model,
            version=found.version_id,
            number=found.number,
            semver=found.semver,
            task=found.task,
            inputs=found.inputs,
            output=found.output_name,
            outputs=found.outputs,
        )
        return to_json(card)

    def health(self, request: Request) -> Reply:
        """Say that the process lives, and what it has done."""
        return to_json(self._state(request))

    def ready(self, request: Request) -> Reply:
        """Say whether it answers."""
        state = self._state(request)
        return Reply(200 if state.ready else 503, _ENCODER.encode(state))

    def _event_us(self, text: str | None) -> int | None:
        if text is None:
            return None
        return int(event_time(text, self._service.clock.now()).timestamp() * 1_000_000)

    def _state(self, request: Request) -> Health:
        service = self._service
        name = request.params.get("model")
        all_of = list(service.endpoints.values()) if name is None else [service.find(name)]
        tally = service.count()
        told = None if name is None else all_of[0].lineup.deployment
        counted = [
            found for (deployed, _, _), found in tally.answers.items() if told in {None, deployed}
        ]
        return Health(
            ready=service.is_ready(all_of),
            epoch=max((each.lineup.epoch for each in all_of), default=0),
            predictions=sum(sum(each.rows.values()) for each in counted),
            fallbacks=sum(each.fallbacks for each in counted),
            unlogged=sum(each.unlogged for each in counted),
            fsync_errors=int(tally.gauges.get("log_fsync_errors", 0)),
            awaited_shadows=sum(
                rows for served, rows in tally.awaited.items() if name in {None, served}
            ),
            refused=(
                *(bad.code for each in all_of for bad in each.switchboard.refused),
                *([service.tokens.problem] if service.tokens and service.tokens.problem else ()),
            ),
        )


def _encode(result: Result, endpoint: Endpoint, why: Explanation | None = None) -> Reply:
    bundle, arm, constant = result.loaded.bundle, result.arm, result.is_constant
    version = None if constant else bundle.version_id
    names, is_fallback = bundle.outputs, result.is_fallback
    predictions = [
        Prediction(
            id=id_,
            output=None if names else output,
            version=version,
            arm=arm,
            fallback=is_fallback,
            constant=constant,
            outputs=dict(zip(names, output, strict=True)) if names else None,
        )
        for id_, output in zip(result.ids(), result.outputs.tolist(), strict=True)
    ]
    answer = PredictAnswer(
        predictions=predictions,
        deployment=endpoint.name,
        logged=result.is_logged,
        explanation=why,
    )
    return Reply(200, _ENCODER.encode(answer))
