"""What gRPC says as messages: made from the .proto files beside this, for any later protobuf.

The messages live in a pool of their own, so that another library's copy of the same names, such as
Triton's client, may stand beside them in one process.
"""

from __future__ import annotations

from importlib import resources
from types import SimpleNamespace
from typing import Any

from everloop.core.errors import MissingExtra


def load_messages() -> Any:
    """Return the message classes by their names.

    Raises:
        MissingExtra: protobuf is not installed.
    """
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise missing() from error
    found = descriptor_pb2.FileDescriptorSet()
    found.ParseFromString(resources.files(__package__).joinpath("messages.binpb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    made = SimpleNamespace()
    for file in found.file:
        pool.Add(file)
    for file in found.file:
        for message in file.message_type:
            name = f"{file.package}.{message.name}"
            kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
            setattr(made, message.name, kind)
    return made


def missing() -> MissingExtra:
    """Return the error of a process that lacks what gRPC needs."""
    return MissingExtra(
        "extra.missing",
        "gRPC needs packages that are not installed.",
        hint="pip install 'everloop[grpc]'",
    )
