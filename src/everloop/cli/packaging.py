"""``everloop export image`` and its kin: a model version as what serves it elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from everloop.cli import output
from everloop.cli.session import Session
from everloop.core.errors import InvalidInput

if TYPE_CHECKING:
    from everloop.export.model import Placement, Subject

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
REF: Final = click.argument("ref")


def _shared(what: str) -> Decorator:
    """Return the options that every export takes."""
    where = click.option(
        "-o",
        "--output",
        "place",
        required=True,
        type=click.Path(path_type=Path),
        help=what,
    )
    others = (
        click.option("--force", is_flag=True, help="Replace the file, or what an export wrote."),
        click.option("--reason", help="Why, for the record."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON: what was written."),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed((where, *others)):
            command = option(command)
        return click.pass_obj(command)

    return decorate


def _placed(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how many run, with what, and where."""
    options = (
        click.option("--image", required=True, help="The image, as registry/credit:1.4.0."),
        click.option("--namespace", help="Namespace; whoever applies it says it when left out."),
        click.option("--replicas", default="2:6", help="Least and most pods. [2:6]"),
        click.option("--cpu", default="1", help="Processors of a pod. [1]"),
        click.option("--memory", default="512Mi", help="Memory of a pod. [512Mi]"),
        click.option("--tokens-secret", help="Secret whose key 'tokens' says who may ask."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("bundle")
@REF
@_shared("A folder, or a file that ends in .tar.gz (as Amazon SageMaker takes it).")
def bundle(session: Session, /, ref: str, place: Path, **given: Any) -> int:
    """Write the sealed bundle of REF: a version (model:credit@3) or a deployment.

    `everloop-serve FOLDER` serves it, and so does the image of `everloop export image` when it is
    mounted.
    """
    from everloop.export.archives import to_gzip, to_tar
    from everloop.export.folder import write_file, write_folder

    subject = _fetch(session, ref, given["reason"])
    if place.name.endswith((".tar.gz", ".tgz")):
        write_file(place, to_gzip(to_tar(subject.files)), force=given["force"])
    else:
        write_folder(place, subject.files, force=given["force"])
    return _tell("bundle", subject, place, sorted(subject.files), as_json=given["as_json"])


@click.command("image")
@click.argument("ref", required=False)
@_shared("A folder.")
@click.option("--python", help="Python of the image, as 3.11; this one's when left out.")
@click.option("--base", help="Image to build upon, best with its digest; a slim Python otherwise.")
@click.option(
    "--with",
    "also",
    multiple=True,
    type=click.Choice(["storage", "grpc", "otel"]),
    help="Also fetch bundles from object storage, answer over gRPC, send traces; repeatable.",
)
@click.option(
    "--without-model",
    "formats",
    multiple=True,
    metavar="FORMAT",
    help="No bundle in it: for bundles of FORMAT that are mounted or fetched; repeatable.",
)
def image(session: Session, /, ref: str | None, place: Path, **given: Any) -> int:
    """Write a folder that builds as an OCI image that serves REF, a version or a deployment.

    The build needs no server of ours and no shell in the image: `docker build FOLDER`.
    """
    from everloop.export.folder import write_folder
    from everloop.export.image import Recipe, default_python, image_files

    formats: tuple[str, ...] = given["formats"]
    if (ref is None) == (not formats):
        raise click.UsageError("Name a version or a deployment, or --without-model FORMAT.")
    subject = None if ref is None else _fetch(session, ref, given["reason"])
    recipe = Recipe(
        subject=subject,
        formats=formats if subject is None else (subject.bundle.format,),
        public_key=_server_key(session) if subject is None else subject.public_key,
        python=given["python"] or default_python(),
        base=given["base"],
        also=given["also"],
    )
    files = image_files(recipe)
    write_folder(place, files, force=given["force"])
    return _tell("image", subject, place, list(files), as_json=given["as_json"])


@click.command("kubernetes")
@REF
@_shared("A folder.")
@_placed
def kubernetes(session: Session, /, ref: str, place: Path, **given: Any) -> int:
    """Write manifests for plain Kubernetes that serve REF; `kubectl apply -k FOLDER` takes them."""
    from everloop.export.kubernetes import kubernetes_files

    subject = _fetch(session, ref, given["reason"])
    files = kubernetes_files(subject, _placement(given))
    return _write("kubernetes", subject, place, given, files)


@click.command("kserve")
@REF
@_shared("A folder.")
@_placed
@click.option("--storage-uri", help="Address of the bundle; the image holds it when left out.")
@click.option("--canary-image", help="Image of a second version beside it.")
@click.option("--canary-storage-uri", help="Address of the second version's bundle.")
@click.option(
    "--canary-percent",
    type=click.IntRange(1, 99),
    default=10,
    help="The second version's share of the traffic. [10]",
)
def kserve(session: Session, /, ref: str, place: Path, **given: Any) -> int:
    """Write an inference service for KServe that serves REF, and a runtime where it needs one."""
    from everloop.export.kserve import Canary, kserve_files

    subject = _fetch(session, ref, given["reason"])
    second = (given["canary_image"], given["canary_storage_uri"])
    canary = Canary(
        image=second[0], storage_uri=second[1], percent=given["canary_percent"]
    ) if any(second) else None  # fmt: skip
    files = kserve_files(
        subject, _placement(given), storage_uri=given["storage_uri"], canary=canary
    )
    return _write("kserve", subject, place, given, files)


@click.command("seldon")
@REF
@_shared("A folder.")
@_placed
@click.option("--storage-uri", help="Address of the bundle: writes for Seldon Core 2.")
def seldon(session: Session, /, ref: str, place: Path, **given: Any) -> int:
    """Write manifests for Seldon Core 1, or 2 with --storage-uri, that serve REF."""
    from everloop.export.seldon import seldon1_files, seldon2_files

    subject = _fetch(session, ref, given["reason"])
    placement, address = _placement(given), given["storage_uri"]
    files = (
        seldon1_files(subject, placement)
        if address is None
        else seldon2_files(subject, placement, storage_uri=address)
    )
    return _write("seldon", subject, place, given, files)


@click.command("systemd")
@REF
@_shared("A folder.")
@click.option("--port", type=click.IntRange(1, 65_535), default=8080, help="Port. [8080]")
@click.option("--memory", default="512M", help="Most memory, as systemd writes it. [512M]")
@click.option("--python", help="Python of the machine, as 3.11; this one's when left out.")
def systemd(session: Session, /, ref: str, place: Path, **given: Any) -> int:
    """Write a hardened systemd unit that serves REF, with all that it serves from."""
    from everloop.export.folder import write_folder
    from everloop.export.image import default_python
    from everloop.export.systemd import systemd_files

    subject = _fetch(session, ref, given["reason"])
    python = given["python"] or default_python()
    files = systemd_files(subject, python=python, port=given["port"], memory=given["memory"])
    write_folder(place, files, force=given["force"])
    return _tell("systemd", subject, place, list(files), as_json=given["as_json"])


@click.command("compose")
@REF
@_shared("A folder.")
@click.option("--image", required=True, help="The image, as registry/credit:1.4.0.")
@click.option("--build", help="Folder that `everloop export image` wrote, for Compose to build.")
@click.option("--cpu", default="1", help="Processors. [1]")
@click.option("--memory", default="512Mi", help="Memory. [512Mi]")
def compose(session: Session, /, ref: str, place: Path, **given: Any) -> int:
    """Write compose.yaml for Docker Compose that serves REF."""
    from everloop.export.compose import compose_files
    from everloop.export.model import Placement

    subject = _fetch(session, ref, given["reason"])
    placement = Placement(image=given["image"], cpu=given["cpu"], memory=given["memory"])
    files = compose_files(subject, placement, build=given["build"])
    return _write("compose", subject, place, given, files)


def _fetch(session: Session, ref: str, reason: str | None) -> Subject:
    from everloop.app.exporting import fetch_subject

    output.write_note(f"Sealing {ref} ...")
    return fetch_subject(session.client, ref, reason=reason)


def _server_key(session: Session) -> str:
    from everloop.app.exporting import AskSealKey, SealKey

    return session.perform("bundle.key", AskSealKey(), SealKey).public_key


def _placement(given: dict[str, Any]) -> Placement:
    from everloop.export.model import Placement

    least, _, most = given["replicas"].partition(":")
    if not (least.isdecimal() and (most or least).isdecimal()):
        raise InvalidInput(
            "export.setting_invalid",
            f"{given['replicas'][:20]!r} is no number of replicas.",
            hint="Write 3, or the least and the most as 2:6.",
        )
    return Placement(
        image=given["image"],
        namespace=given["namespace"],
        replicas=(int(least[:6]), int((most or least)[:6])),
        cpu=given["cpu"],
        memory=given["memory"],
        tokens_secret=given["tokens_secret"],
    )


def _write(
    what: str,
    subject: Subject,
    place: Path,
    given: dict[str, Any],
    texts: dict[str, str],
) -> int:
    from everloop.export.folder import write_folder

    files = {name: text.encode() for name, text in texts.items()}
    write_folder(place, files, force=given["force"])
    return _tell(what, subject, place, list(files), as_json=given["as_json"])


def _tell(
    what: str, subject: Subject | None, place: Path, files: list[str], *, as_json: bool
) -> int:
    """Say what was written."""
    if as_json:
        told: dict[str, object] = {"what": what, "output": str(place), "files": files}
        if subject is not None:
            told |= {
                "model": subject.bundle.model,
                "version": subject.bundle.semver,
                "version_id": subject.version_id,
                "seal": subject.seal,
                "public_key": subject.public_key,
            }
        output.write_json(told)
        return 0
    of = f" of {subject.bundle.model} {subject.bundle.semver}" if subject is not None else ""
    output.write_clean(f"{place}: {what}{of}, {len(files)} files")
    return 0


COMMANDS: dict[str, click.Command] = {
    command.name: command
    for command in (bundle, image, kubernetes, kserve, seldon, systemd, compose)
    if command.name
}
