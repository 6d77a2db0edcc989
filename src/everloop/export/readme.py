"""The README of an exported folder: how to build it, run it, and ask it."""

from __future__ import annotations

from typing import Final

import msgspec

from everloop.export.lock import SYSTEM_PACKAGES
from everloop.export.model import PORT, Subject

SYSTEMD_PLACE: Final = "/opt/everloop"


def image_readme(title: str, subject: Subject | None) -> str:
    """Return the README of a folder that builds as an image."""
    head = _WITHOUT.format(title=title) if subject is None else _with(title, subject)
    mounted = ' \\\n  --volume "$PWD/bundle:/mnt/models:ro"' if subject is None else ""
    body = head + _BUILD.format(title=title, port=PORT, mounted=mounted)
    if subject is not None:
        body += _PLAIN.format(public_key=subject.public_key)
        body += _ASK.format(port=PORT, rows=example_rows(subject))
    return body + _TAIL


def systemd_readme(subject: Subject, unit: str, python: str, port: int) -> str:
    """Return the README of a folder with a systemd unit."""
    place = f"{SYSTEMD_PLACE}/{subject.name}"
    packages = " ".join(SYSTEM_PACKAGES.get(subject.bundle.format, ()))
    body = _with(subject.name, subject)
    body += _SYSTEMD.format(place=place, unit=unit, python=python)
    if packages:
        body += f"The model needs a library of the system: `apt-get install {packages}`.\n"
    return body + _ASK.format(port=port, rows=example_rows(subject))


def example_rows(subject: Subject) -> str:
    """Return a request that the model answers, as JSON: a golden row, or a row of zeros."""
    golden = subject.bundle.golden
    row = dict(golden[0].inputs) if golden else {}
    for field in subject.bundle.inputs:
        if field.name not in row:
            row[field.name] = field.categories[0] if field.categories else 0
    return msgspec.json.encode({"dataframe_records": [row]}).decode()


def _with(title: str, subject: Subject) -> str:
    bundle = subject.bundle
    return _MODEL.format(
        title=title,
        model=bundle.model,
        semver=bundle.semver,
        number=bundle.number,
        version_id=bundle.version_id,
        artifact=bundle.artifact,
        seal=subject.seal,
        public_key=subject.public_key,
    )


_MODEL: Final = """\
# {title}
Model {model}, version {semver} (number {number}), as a sealed bundle with its server.

| | |
|---|---|
| version id | `{version_id}` |
| artifact | `{artifact}` |
| seal | `{seal}` |
| public key | `{public_key}` |

The server refuses to start when the bundle is not signed by that key, when a file has changed, or
when the model does not repeat its golden answers on the machine at hand.
"""

_WITHOUT: Final = """\
# {title}
The server without a model: it serves what is mounted at `/opt/ml/model`, `/mnt/models` or
`AZUREML_MODEL_DIR`, named by `EVERLOOP_MODEL`, or fetched from `AIP_STORAGE_URI`.
`everloop export bundle` writes such a bundle.
"""

_BUILD: Final = """
## Build and run
```
docker build --tag {title} .
docker run --rm --read-only --cap-drop ALL --publish 127.0.0.1:{port}:8080{mounted} {title}
```
Without Docker: `buildah build --tag {title} .`
"""

_PLAIN: Final = """
Without a container, on any Linux with the Python of the Dockerfile:
```
python -m venv --without-pip venv
python -m pip --python venv/bin/python install --no-deps --require-hashes --only-binary=:all: \\
  -r requirements.lock
EVERLOOP_PUBLIC_KEY={public_key} \\
  venv/bin/everloop-serve bundle
```
"""

_SYSTEMD: Final = """
## Install
As root, with this folder copied to `{place}`:
```
cd {place}
python{python} -m venv --without-pip venv
python{python} -m pip --python venv/bin/python install --no-deps --require-hashes \\
  --only-binary=:all: -r requirements.lock
install --mode=0644 {unit} /etc/systemd/system/
systemctl daemon-reload
systemctl enable --now {unit}
```
"""

_ASK: Final = """
## Ask
```
curl http://127.0.0.1:{port}/readyz
curl http://127.0.0.1:{port}/invocations -H 'content-type: application/json' -d '{rows}'
```
"""

_TAIL: Final = """
## Files
`requirements.lock` pins every distribution by hash; `sbom.cdx.json` lists them and the model
(CycloneDX); `export.json` has the SHA-256 of each file here.
"""
