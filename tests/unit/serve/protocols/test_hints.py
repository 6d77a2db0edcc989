"""What an error tells one to look at next can be looked at: it has the model's own address."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.unit.serve.protocols.desk import make_desk, version
from tests.unit.serve.served import ROW

NAME = "our bikes"
AT = "/models/our%20bikes"
UNFIT = {
    f"/v2{AT}/infer": {"inputs": [{"name": "hour", "datatype": "INT64", "shape": [1]}]},
    f"{AT}/invocations": {"instances": [[1, 2]]},
    "/invocations": {"instances": [{}]},
    f"/v1{AT}:predict": {"instances": [[1, 2]]},
    "/score": {"input_data": [[1, 2]]},
    f"{AT}/whatif": {"inputs": [ROW, ROW]},
}


@pytest.mark.parametrize("path", UNFIT)
def test_the_hint_of_a_refusal_names_the_model_that_was_asked(tmp_path: Path, path: str) -> None:
    desk = make_desk(tmp_path)
    desk.service.endpoints.clear()
    desk.serve(NAME, version(1))

    reply = desk.ask("POST", path, json.dumps(UNFIT[path]).encode())
    desk.log.close()

    assert 400 == reply.status
    (method, told) = re.findall(r"(GET|POST) (/\S+)", reply.body.decode())[0]
    assert f"/models/{NAME}" in unquote(told)
    assert 400 == desk.ask("POST", told).status if method == "POST" else 200 == desk.get(told)[0]
