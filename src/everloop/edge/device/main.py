"""The command line of an edge bundle: ``python credit.pyz predict '{"age": 41}'``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, List, Optional, Sequence

from everloop.edge.device.agent import Agent
from everloop.edge.device.bundle import open_bundle, own_archive, parse_key
from everloop.edge.device.engine import Engine
from everloop.edge.device.files import read_json
from everloop.edge.device.journal import Journal
from everloop.edge.device.refusal import EdgeError
from everloop.edge.device.service import Service, describe, read_rows

STATE_VARIABLE = "EVERLOOP_EDGE_STATE"


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run a command line; return the exit code: 0, 1 for a refusal, 2 for a wrong command."""
    asked = _parser().parse_args(arguments)
    try:
        return int(asked.command(asked))
    except EdgeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{error}. [edge.system] Check the folder and the port.\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _predict(asked: argparse.Namespace) -> int:
    text = sys.stdin.read() if asked.row == "-" else asked.row
    rows = read_rows(text.encode())
    engine = Engine(_open(asked), asked.state)
    for answer in engine.predict(rows):
        _say(answer)
    return 0


def _verify(asked: argparse.Namespace) -> int:
    bundle = _open(asked)
    golden = bundle.check_golden()
    told = {
        "verified": True,
        "key_pinned": bundle.is_pinned,
        "signed_by": bundle.manifest["key"],
        "golden_rows": golden,
        **describe(bundle.manifest),
    }
    told.pop("inputs")
    _say(told)
    return 0


def _describe(asked: argparse.Namespace) -> int:
    _say(describe(_open(asked).manifest))
    return 0


def _serve(asked: argparse.Namespace) -> int:
    engine = Engine(_open(asked), asked.state)
    service = Service(engine, (asked.host, asked.port), parent=asked.parent)
    host, port = service.server_address[:2]
    address = f"http://{host if isinstance(host, str) else host.decode()}:{port}"
    _say({"serving": address, "version": engine.bundle.manifest["version"]})
    if asked.address_file:
        draft = asked.address_file.with_name(f".{asked.address_file.name}.{os.getpid()}")
        draft.write_text(address)
        draft.replace(asked.address_file)
    try:
        service.serve_forever(poll_interval=0.2)
    finally:
        service.server_close()
    return 0


def _sync(asked: argparse.Namespace) -> int:
    agent = Agent(_require_state(asked))
    is_changed = agent.ask()
    if is_changed:
        # Nobody waits for its health here; it has repeated its golden answers in its own process.
        agent.updates.confirm()
    told = {
        "updated": is_changed,
        "running": agent.updates.current,
        "epoch": agent.updates.told["epoch"],
        "batches_sent": agent.tell(),
    }
    _say(told)
    return 0


def _run(asked: argparse.Namespace) -> int:
    agent = Agent(_require_state(asked), trial_s=asked.trial)
    return agent.run(host=asked.host, port=asked.port, interval_s=asked.every)


def _status(asked: argparse.Namespace) -> int:
    folder = _require_state(asked)
    log = folder / "log" if (folder / "device.json").exists() else folder
    _say({**Journal(log).standing(), "agent": read_json(folder / "agent.json")})
    return 0


def _open(asked: argparse.Namespace) -> Any:
    return open_bundle(asked.bundle or own_archive(), parse_key(asked.key) if asked.key else None)


def _require_state(asked: argparse.Namespace) -> Path:
    if asked.state is None:
        raise EdgeError(
            "edge.no_state",
            "This needs the folder in which the device keeps its log.",
            f"Give it with --state, or in {STATE_VARIABLE}.",
        )
    folder: Path = asked.state
    return folder


def _say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=Path(sys.argv[0]).name, description="A sealed model that answers on this machine."
    )
    given = os.environ.get(STATE_VARIABLE)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--key", help="the only public key, in hex, whose signature counts")
    shared.add_argument("--bundle", type=Path, help="another bundle's file than this one")
    shared.add_argument(
        "--state",
        type=Path,
        default=Path(given) if given else None,
        help="folder of the device's log; nothing is logged without one",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in _COMMANDS:
        made = commands.add_parser(name, parents=[shared], help=text, description=text)
        made.set_defaults(command=command)
        if name == "predict":
            made.add_argument("row", help="a row as JSON, a list of them, or - to read them")
        if name in ("serve", "run"):
            made.add_argument("--host", default="127.0.0.1", help="address to listen on")
            made.add_argument("--port", type=int, default=8080, help="port; 0 takes a free one")
        if name == "serve":
            made.add_argument("--address-file", type=Path, help="where to write the address")
            made.add_argument("--parent", type=int, help=argparse.SUPPRESS)
        if name == "run":
            made.add_argument("--every", type=float, default=60.0, help="seconds between questions")
            made.add_argument(
                "--trial",
                type=float,
                default=10.0,
                help="seconds a new bundle must \
be healthy before it is kept",
            )
    return parser


_COMMANDS: List[Any] = [
    ("predict", _predict, "Answer a row."),
    ("serve", _serve, "Answer over HTTP: POST /predict, GET /healthz and /model."),
    ("verify", _verify, "Verify signature, digests and golden answers."),
    ("describe", _describe, "Show the model and the inputs that it takes."),
    ("run", _run, "Be a device of a fleet: serve, ask what to run, tell how it goes."),
    ("sync", _sync, "Ask once what to run, and send what the log holds."),
    ("status", _status, "Show what is in the log."),
]
