"""systemd: a unit that serves a bundle from an environment on the machine, shut in and watched."""

from __future__ import annotations

import re
from typing import Final

from everloop.core.errors import InvalidInput
from everloop.export.image import BUNDLE, LOCK
from everloop.export.lock import locked, requirements
from everloop.export.manifests import NOTE
from everloop.export.model import GRACE_S, PORT, Subject
from everloop.export.readme import SYSTEMD_PLACE, systemd_readme
from everloop.export.wheel import serving_wheel

_MEMORY: Final = re.compile(r"[1-9][0-9]{0,8}[KMGT]?")


def systemd_files(
    subject: Subject, *, python: str, port: int = PORT, memory: str = "512M"
) -> dict[str, bytes]:
    """Return a folder to be copied to ``/opt/everloop/<name>``: unit, bundle, lock and README.

    Args:
        subject: What is served.
        python: The machine's Python, such as ``3.11``.
        port: Port on the loopback.
        memory: Most memory, as systemd writes it.

    Raises:
        InvalidInput: ``export.setting_invalid``, or there is no lock for that Python.
        UnsafeArtifact: there is no lock for the model's format.
    """
    if _MEMORY.fullmatch(memory) is None:
        raise InvalidInput(
            "export.setting_invalid",
            f"{memory[:20]!r} is no amount of memory.",
            hint="Write it as systemd does, such as 512M or 2G.",
        )
    wheel = serving_wheel()
    lock = requirements(locked(python, (subject.bundle.format,)), wheel.file, wheel.digest)
    name = unit_name(subject)
    texts = {
        name: unit(subject, port=port, memory=memory),
        "README.md": systemd_readme(subject, name, python, port),
        LOCK: lock,
    }
    files = {place: text.encode() for place, text in texts.items()}
    files[wheel.file] = wheel.data
    files |= {f"{BUNDLE}/{place}": data for place, data in subject.files.items()}
    return dict(sorted(files.items()))


def unit_name(subject: Subject) -> str:
    """Return the name of the unit's file."""
    return f"everloop-{subject.name}.service"


def unit(subject: Subject, *, port: int = PORT, memory: str = "512M") -> str:
    """Return the unit's text.

    The server runs as a user that exists only while it runs, sees no home folder and no device,
    can write its log and nothing else, and gets no system call that a server does not need.

    Args:
        subject: What is served; its folder is ``/opt/everloop/<name>``.
        port: Port on the loopback; a proxy with TLS stands before it.
        memory: Most memory, as systemd writes it.
    """
    place = f"{SYSTEMD_PLACE}/{subject.name}"
    return NOTE + _UNIT.format(
        model=subject.bundle.model,
        semver=subject.bundle.semver,
        name=subject.name,
        place=place,
        port=port,
        key=subject.public_key,
        memory=memory,
        grace=GRACE_S,
    )


_UNIT: Final = """\
[Unit]
Description=Everloop: model {model} {semver}
Documentation=file://{place}/README.md
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=60
StartLimitBurst=10

[Service]
Type=notify
NotifyAccess=main
WatchdogSec=30
TimeoutStartSec=120
ExecStart={place}/venv/bin/everloop-serve {place}/bundle --host 127.0.0.1 --port {port}
Environment=EVERLOOP_PUBLIC_KEY={key}
Environment=EVERLOOP_LOG=%S/everloop/{name}
Environment=PYTHONUNBUFFERED=1
Environment=PYTHONDONTWRITEBYTECODE=1
Restart=always
RestartSec=1
TimeoutStopSec={grace}
KillMode=mixed
KillSignal=SIGTERM

# A user of its own, and a folder for the prediction log
DynamicUser=yes
StateDirectory=everloop/{name}
StateDirectoryMode=0700
UMask=0077

# What it may use
MemoryMax={memory}
TasksMax=128
LimitNOFILE=65536

# What it may see and do
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectProc=invisible
ProcSubset=pid
ProtectClock=yes
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
NoNewPrivileges=yes
RemoveIPC=yes
CapabilityBoundingSet=
AmbientCapabilities=
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
