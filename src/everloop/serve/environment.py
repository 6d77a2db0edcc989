"""Finds out what to serve and where to listen: from the command line, else from the platform.

One image serves everywhere, because each platform says where the model lies and which port it asks
in its own way; the ways are tried in one documented order. Pure: the arguments, the variables and a
look at the file system come in, nothing is opened. It must never know what a bundle is.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NoReturn

from everloop.core.errors import InvalidInput

MODEL_VARIABLE: Final = "EVERLOOP_MODEL"
SAGEMAKER_FOLDER: Final = Path("/opt/ml/model")
AZURE_VARIABLE: Final = "AZUREML_MODEL_DIR"
KSERVE_FOLDER: Final = Path("/mnt/models")
STORAGE_VARIABLE: Final = "AIP_STORAGE_URI"
PORT_VARIABLES: Final = ("AIP_HTTP_PORT", "PREDICTIVE_UNIT_HTTP_SERVICE_PORT", "PORT")
# Not Seldon's PREDICTIVE_UNIT_GRPC_SERVICE_PORT, which is set whether gRPC is wanted or not.
GRPC_VARIABLES: Final = ("EVERLOOP_GRPC_PORT",)
WORKER_VARIABLES: Final = (
    "EVERLOOP_WORKERS",
    "SAGEMAKER_MODEL_SERVER_WORKERS",
    "WEB_CONCURRENCY",
)
STANDALONE_PORT: Final = 8080
LOOPBACK: Final = "127.0.0.1"
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 -- in a container of a platform, which guards the way in
MOST_WORKERS: Final = 256
# Amazon SageMaker starts every image with this argument.
IGNORED_ARGUMENT: Final = "serve"

_KEY: Final = re.compile(r"[0-9a-f]{64}")
_HOST: Final = re.compile(r"(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")

Exists = Callable[[Path], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a process serves, and where.

    Attributes:
        models: Bundles, or folders of bundles; empty for a managed home.
        home: The serving folder that a control plane keeps; None when standalone.
        storage: Address from which the bundle is fetched before serving; None when it is here.
        host: Address to listen on: the loopback, unless a platform asks from outside.
        port: Port to listen on; 0 takes a free one.
        grpc_port: Port for gRPC; None when nothing names one.
        workers: Processes that answer; None leaves it to the server.
        public_key: Hex of the only key whose bundles are accepted; None when nothing pins one.
        tokens_file: Hashes of the tokens that may ask; None is open to whom the platform lets in.
        log: Folder of the prediction log; None leaves it to the server.
        health_path: Path that the platform asks for health, beside the usual ones.
        predict_path: Path that the platform sends requests to, beside the usual ones.
        source: What named the model, in words for the log.
        is_repository_open: Whether whoever may ask may load and unload, too.
        is_named_by_folder: Whether a bundle found in a folder of them is called as its own folder.
        allowed_hosts: Hosts whose pages may ask on the loopback, beside this machine's own.
    """

    models: tuple[Path, ...] = ()
    home: Path | None = None
    storage: str | None = None
    host: str = LOOPBACK
    port: int = 0
    grpc_port: int | None = None
    workers: int | None = None
    public_key: str | None = None
    tokens_file: Path | None = None
    log: Path | None = None
    health_path: str | None = None
    predict_path: str | None = None
    source: str = ""
    is_repository_open: bool = False
    is_named_by_folder: bool = False
    allowed_hosts: frozenset[str] = frozenset()

    @property
    def takes_models(self) -> bool:
        """Whether bundles may be loaded and unloaded by request.

        Never where a control plane says what is served; else on the loopback, to holders of tokens,
        or where the environment says so, since who may ask a model may not always take it away.
        """
        is_guarded = self.tokens_file is not None or self.is_on_loopback
        return self.home is None and (is_guarded or self.is_repository_open)

    @property
    def is_open(self) -> bool:
        """Whether anybody may ask whom the platform lets in."""
        return self.home is None and self.tokens_file is None

    @property
    def is_on_loopback(self) -> bool:
        """Whether this machine alone is listened to."""
        return is_this_machine(self.host)

    @property
    def is_managed(self) -> bool:
        """Whether a control plane says what is served."""
        return self.home is not None


def discover(
    arguments: Sequence[str], environ: Mapping[str, str], exists: Exists = Path.exists
) -> Found:
    """Return what to serve, and where to listen.

    The model is the first of: the arguments, ``EVERLOOP_MODEL``, ``/opt/ml/model``,
    ``AZUREML_MODEL_DIR``, ``/mnt/models``, ``AIP_STORAGE_URI``. The port is the first of:
    ``--port``, ``AIP_HTTP_PORT``, ``PREDICTIVE_UNIT_HTTP_SERVICE_PORT``, ``PORT``, 8080.

    Args:
        arguments: The command line without the program's name.
        environ: The variables of the process.
        exists: Tells whether a path is there.

    Raises:
        InvalidInput: ``serving.arguments``, ``serving.model_missing`` or ``serving.variable``.
        SystemExit: the arguments ask for help, which is printed.
    """
    asked = _parse(arguments)
    if asked.home is not None:
        if asked.models:
            raise InvalidInput(
                "serving.arguments",
                "A home and bundles were named at once.",
                hint="Use --home for a home that a control plane keeps, or name bundles.",
            )
        return _settled(asked, environ, Found(home=asked.home, source="--home"), from_outside=False)
    models, storage, source = _find_model(asked.models, environ, exists)
    is_platform = source not in {"arguments", MODEL_VARIABLE}
    found = Found(models=models, storage=storage, source=source, port=STANDALONE_PORT)
    return _settled(asked, environ, found, from_outside=is_platform)


def is_this_machine(host: str) -> bool:
    """Tell whether a host in small letters, without a port, is never another machine (RFC 6761)."""
    name = host.removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def probe_port(environ: Mapping[str, str]) -> int:
    """Return the port on which a standalone server listens, by its variables alone.

    Raises:
        InvalidInput: ``serving.variable``.
    """
    port = _whole_number(environ, PORT_VARIABLES, 65_535)
    return STANDALONE_PORT if port is None else port


def _find_model(
    named: Sequence[Path], environ: Mapping[str, str], exists: Exists
) -> tuple[tuple[Path, ...], str | None, str]:
    if named:
        return (
            tuple(_require_there(path, "the command line", exists) for path in named),
            None,
            ("arguments"),
        )
    variable = environ.get(MODEL_VARIABLE)
    if variable:
        return (_require_there(Path(variable), MODEL_VARIABLE, exists),), None, MODEL_VARIABLE
    azure = environ.get(AZURE_VARIABLE)
    places = [(SAGEMAKER_FOLDER, str(SAGEMAKER_FOLDER))]
    places += [(Path(azure), AZURE_VARIABLE)] if azure else []
    places += [(KSERVE_FOLDER, str(KSERVE_FOLDER))]
    for folder, source in places:
        if exists(folder):
            return (folder,), None, source
    storage = environ.get(STORAGE_VARIABLE)
    if storage:
        return (), storage, STORAGE_VARIABLE
    raise InvalidInput(
        "serving.model_missing",
        "Nothing says which model to serve.",
        hint=f"Name a bundle, set {MODEL_VARIABLE}, or mount one at {SAGEMAKER_FOLDER} or "
        f"{KSERVE_FOLDER}; {AZURE_VARIABLE} and {STORAGE_VARIABLE} are understood too.",
    )


def _require_there(path: Path, source: str, exists: Exists) -> Path:
    if exists(path):
        return path
    raise InvalidInput(
        "serving.model_missing",
        f"There is nothing at {str(path)[:200]!r}, which {source} names.",
        hint="`everloop export bundle` writes a bundle.",
    )


def _settled(
    asked: argparse.Namespace, environ: Mapping[str, str], found: Found, *, from_outside: bool
) -> Found:
    """Return what was found with all that does not depend on where the model lies."""
    port = asked.port
    if port is None and not found.is_managed:
        port = _whole_number(environ, PORT_VARIABLES, 65_535)
        # Whoever sets one of these routes requests to this process from outside.
        from_outside = from_outside or port is not None
    workers = asked.workers or _whole_number(environ, WORKER_VARIABLES, MOST_WORKERS) or None
    grpc = asked.grpc_port
    if grpc is None:
        grpc = _whole_number(environ, GRPC_VARIABLES, 65_535)
    host = asked.host or environ.get("EVERLOOP_HOST") or (EVERYWHERE if from_outside else LOOPBACK)
    tokens, log = environ.get("EVERLOOP_TOKENS_FILE"), environ.get("EVERLOOP_LOG")
    return Found(
        models=found.models,
        home=found.home,
        storage=found.storage,
        source=found.source,
        host=host,
        port=found.port if port is None else port,
        grpc_port=grpc,
        workers=workers,
        public_key=_public_key(asked, environ),
        tokens_file=Path(tokens) if tokens else None,
        log=Path(log) if log else None,
        health_path=_path(environ, "AIP_HEALTH_ROUTE"),
        predict_path=_path(environ, "AIP_PREDICT_ROUTE"),
        is_repository_open=environ.get("EVERLOOP_REPOSITORY", "").strip() == "open",
        is_named_by_folder=environ.get("EVERLOOP_NAMES", "").strip() == "folder",
        allowed_hosts=_hosts(environ, "EVERLOOP_ALLOWED_HOSTS"),
    )


def _whole_number(environ: Mapping[str, str], names: Sequence[str], most: int) -> int | None:
    for name in names:
        text = environ.get(name, "").strip()
        if not text:
            continue
        if text.isascii() and text.isdigit() and int(text[:10]) <= most:
            return int(text)
        raise InvalidInput(
            "serving.variable",
            f"{name} is {text[:40]!r}, which is no whole number up to {most:,}.",
            hint=f"Correct {name}, or unset it.",
        )
    return None


def _public_key(asked: argparse.Namespace, environ: Mapping[str, str]) -> str | None:
    named, variable = asked.public_key, environ.get("EVERLOOP_PUBLIC_KEY", "").strip()
    text = str(named or variable).lower()
    if not text or _KEY.fullmatch(text):
        return text or None
    raise InvalidInput(
        "serving.arguments" if named else "serving.variable",
        f"{'--public-key' if named else 'EVERLOOP_PUBLIC_KEY'} is {text[:80]!r}, which is no key.",
        hint="A public key is 64 characters of hex, as in the bundle's file bundle.pub.",
    )


def _path(environ: Mapping[str, str], name: str) -> str | None:
    text = environ.get(name, "").strip()
    if not text or text.startswith("/"):
        return text or None
    raise InvalidInput(
        "serving.variable",
        f"{name} is {text[:80]!r}, which does not begin with a slash.",
        hint=f"Correct {name}, or unset it.",
    )


def _hosts(environ: Mapping[str, str], variable: str) -> frozenset[str]:
    names = environ.get(variable, "").lower().replace(",", " ").split()
    for name in names:
        if _HOST.fullmatch(name) is None:
            raise InvalidInput(
                "serving.variable",
                f"{variable} has {name[:80]!r}, which is no host.",
                hint="Name hosts as a browser sends them: models.example.com, or "
                "models.example.com:8443 for one port alone, with commas between them.",
            )
    return frozenset(names)


class _Parser(argparse.ArgumentParser):
    """A parser that raises instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Raises:
            InvalidInput: ``serving.arguments``.
        """
        raise InvalidInput(
            "serving.arguments",
            f"{message[:300]}.",
            hint="`everloop-serve --help` tells what there is.",
        )


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text[:10]) <= 65_535:
        return int(text)
    message = f"{text[:20]!r} is no port"
    raise argparse.ArgumentTypeError(message)


def _workers(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text[:10]) <= MOST_WORKERS:
        return int(text)
    message = f"{text[:20]!r} is no number from 1 to {MOST_WORKERS}"
    raise argparse.ArgumentTypeError(message)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    given = list(arguments)
    if given[:1] == [IGNORED_ARGUMENT]:
        given = given[1:]
    return _parser().parse_args(given)


def _parser() -> _Parser:
    parser = _Parser(
        prog="everloop-serve",
        allow_abbrev=False,
        description="Answer prediction requests: for a home that a control plane keeps, or "
        "standalone for the bundles that are named, found in the environment or mounted.",
        epilog="A first argument 'serve' is ignored, as Amazon SageMaker gives it.",
    )
    add = parser.add_argument
    add("models", nargs="*", type=Path, metavar="BUNDLE", help="a bundle, or a folder of bundles")
    add("--home", type=Path, help="a serving folder that a control plane keeps")
    add("--host", help="address to listen on; the loopback unless a platform asks from outside")
    add("--port", type=_port, help="port to listen on; 0 takes a free one; 8080 when standalone")
    add("--grpc-port", type=_port, help="port for gRPC")
    add("--workers", type=_workers, help="processes that answer")
    add("--public-key", help="hex of the only key whose bundles are accepted")
    return parser
