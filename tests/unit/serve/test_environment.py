from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from everloop.core.errors import InvalidInput
from everloop.serve.environment import discover, probe_port

BUNDLE = Path("/srv/credit")


def only(*there: str) -> Callable[[Path], bool]:
    """Return a file system in which nothing but these paths is there."""
    return lambda path: str(path) in there


@pytest.mark.parametrize(
    ("environ", "there", "expected"),
    [
        ({"EVERLOOP_MODEL": "/model"}, ("/model", "/opt/ml/model"), "/model"),
        ({"AZUREML_MODEL_DIR": "/azure"}, ("/opt/ml/model", "/azure"), "/opt/ml/model"),
        ({"AZUREML_MODEL_DIR": "/azure"}, ("/azure", "/mnt/models"), "/azure"),
        ({"AIP_STORAGE_URI": "gs://b/m"}, ("/mnt/models",), "/mnt/models"),
    ],
)
def test_each_platform_says_where_the_model_lies_in_one_order(
    environ: Mapping[str, str], there: tuple[str, ...], expected: str
) -> None:
    found = discover([], environ, only(*there))

    assert (Path(expected),) == found.models
    assert found.storage is None


def test_vertex_names_an_address_to_fetch_from() -> None:
    found = discover([], {"AIP_STORAGE_URI": "gs://bucket/model"}, only())

    assert () == found.models
    assert "gs://bucket/model" == found.storage


def test_what_the_arguments_name_comes_first() -> None:
    found = discover([str(BUNDLE)], {"EVERLOOP_MODEL": "/model"}, only("/srv/credit", "/model"))

    assert (BUNDLE,) == found.models


def test_the_argument_that_sagemaker_gives_is_passed_over() -> None:
    found = discover(["serve"], {}, only("/opt/ml/model"))

    assert (Path("/opt/ml/model"),) == found.models
    assert ("0.0.0.0", 8080) == (found.host, found.port)


@pytest.mark.parametrize(
    ("arguments", "environ", "expected"),
    [
        ([], {}, 8080),
        ([], {"PORT": "9000"}, 9000),
        ([], {"PORT": "9000", "PREDICTIVE_UNIT_HTTP_SERVICE_PORT": "9001"}, 9001),
        ([], {"PORT": "9000", "AIP_HTTP_PORT": "7080"}, 7080),
        (["--port", "1"], {"AIP_HTTP_PORT": "7080"}, 1),
        (["--port", "0"], {"AIP_HTTP_PORT": "7080"}, 0),
    ],
)
def test_the_port_is_the_one_the_platform_asks(
    arguments: list[str], environ: Mapping[str, str], expected: int
) -> None:
    found = discover([*arguments, str(BUNDLE)], environ, only(str(BUNDLE)))

    assert expected == found.port


@pytest.mark.parametrize(
    ("environ", "there", "expected"),
    [
        ({"EVERLOOP_MODEL": "/model"}, "/model", "127.0.0.1"),
        ({"EVERLOOP_MODEL": "/model", "EVERLOOP_HOST": "::"}, "/model", "::"),
        ({"EVERLOOP_MODEL": "/model", "PORT": "80"}, "/model", "0.0.0.0"),
        ({}, "/mnt/models", "0.0.0.0"),
    ],
)
def test_it_listens_to_the_outside_only_where_a_platform_asks_from_there(
    environ: Mapping[str, str], there: str, expected: str
) -> None:
    assert expected == discover([], environ, only(there)).host


def test_a_home_keeps_its_own_port_whatever_the_environment_says() -> None:
    found = discover(["--home", "/keeps/serve"], {"PORT": "80", "EVERLOOP_MODEL": "/x"}, only())

    assert found.is_managed
    assert ((), 0, "127.0.0.1") == (found.models, found.port, found.host)


def test_everything_else_comes_from_variables() -> None:
    environ = {
        "AIP_HEALTH_ROUTE": "/v1/endpoints/1/deployedModels/2",
        "AIP_PREDICT_ROUTE": "/v1/endpoints/1/deployedModels/2:predict",
        "EVERLOOP_LOG": "/var/lib/everloop",
        "EVERLOOP_PUBLIC_KEY": "ab" * 32,
        "EVERLOOP_TOKENS_FILE": "/run/secrets/tokens",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "3",
        "EVERLOOP_GRPC_PORT": "9500",
        "EVERLOOP_ALLOWED_HOSTS": "Models.Example.com, shop.example.com:8443",
    }

    found = discover([str(BUNDLE)], environ, only(str(BUNDLE)))

    assert "/v1/endpoints/1/deployedModels/2" == found.health_path
    assert "/v1/endpoints/1/deployedModels/2:predict" == found.predict_path
    assert Path("/var/lib/everloop") == found.log
    assert "ab" * 32 == found.public_key
    assert Path("/run/secrets/tokens") == found.tokens_file
    assert (3, 9500) == (found.workers, found.grpc_port)
    assert {"models.example.com", "shop.example.com:8443"} == found.allowed_hosts


@pytest.mark.parametrize(
    ("arguments", "environ", "code"),
    [
        ([], {}, "serving.model_missing"),
        (["/nowhere"], {}, "serving.model_missing"),
        ([], {"EVERLOOP_MODEL": "/nowhere"}, "serving.model_missing"),
        (["--port", "x", str(BUNDLE)], {}, "serving.arguments"),
        (["--port", "70000", str(BUNDLE)], {}, "serving.arguments"),
        (["--workers", "0", str(BUNDLE)], {}, "serving.arguments"),
        (["--home", "/h", str(BUNDLE)], {}, "serving.arguments"),
        (["--prot", "1", str(BUNDLE)], {}, "serving.arguments"),
        ([str(BUNDLE)], {"PORT": "tcp://10.0.0.1:80"}, "serving.variable"),
        ([str(BUNDLE)], {"PORT": "70000"}, "serving.variable"),
        ([str(BUNDLE)], {"PORT": "٣"}, "serving.variable"),
        ([str(BUNDLE)], {"AIP_PREDICT_ROUTE": "predict"}, "serving.variable"),
        ([str(BUNDLE)], {"EVERLOOP_ALLOWED_HOSTS": "https://a.example"}, "serving.variable"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: list[str], environ: Mapping[str, str], code: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        discover(arguments, environ, only(str(BUNDLE)))

    assert code == refused.value.code


def test_a_probe_knows_the_port_by_the_variables() -> None:
    assert 8080 == probe_port({})
    assert 7080 == probe_port({"AIP_HTTP_PORT": "7080", "PORT": "1"})


@pytest.mark.parametrize(
    ("arguments", "environ", "is_taken"),
    [
        ([], {}, True),  # on the loopback
        (["--host", "0.0.0.0"], {}, False),
        (["--host", "0.0.0.0"], {"EVERLOOP_REPOSITORY": "open"}, True),
        (["--host", "0.0.0.0"], {"EVERLOOP_REPOSITORY": "1"}, False),
        (["--host", "0.0.0.0"], {"EVERLOOP_TOKENS_FILE": "/tokens"}, True),
    ],
)
def test_bundles_are_loaded_by_request_only_where_that_is_safe_or_wanted(
    arguments: list[str], environ: Mapping[str, str], *, is_taken: bool
) -> None:
    found = discover([*arguments, str(BUNDLE)], environ, only(str(BUNDLE)))

    assert is_taken == found.takes_models


def test_a_home_of_a_control_plane_never_takes_bundles_by_request() -> None:
    found = discover(["--home", "/srv/serve"], {"EVERLOOP_REPOSITORY": "open"}, only())

    assert not found.takes_models


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [(["--public-key", "zz"], {}), ([], {"EVERLOOP_PUBLIC_KEY": "ab" * 31})],
)
def test_what_is_no_key_is_refused_as_such(arguments: list[str], environ: dict[str, str]) -> None:
    with pytest.raises(InvalidInput) as refused:
        discover(["/models/price", *arguments], environ, lambda path: True)

    assert "is no key" in refused.value.message
