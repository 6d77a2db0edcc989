"""The limit of our own HTTP server: the same protocol and loop, answering one fixed text."""

import asyncio
import socket
import sys

import uvloop

from everloop.serve.exchange import Answer, Reply, Request
from everloop.serve.http import Listener
from everloop.serve.limits import Limits

ANSWER = Reply(
    200,
    b'{"predictions":[{"id":"01930000-0000-7000-8000-000000000001","output":0.123456789012345,'
    b'"version":"01930000-0000-7000-8000-000000000001","arm":"champion"}],"deployment":"bench"}',
)


class Echo:
    """Answers everything alike."""

    def handle(self, request: Request) -> Answer:
        del request
        return ANSWER


async def serve(port: int) -> None:
    """Serve until stopped."""
    listener = Listener(Echo(), Limits())
    loop = asyncio.get_running_loop()
    listening = socket.create_server(("127.0.0.1", port), backlog=2_048)
    await loop.create_server(listener.connect, sock=listening)
    await listener.sweep()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
