"""An S3 server on loopback (moto's), for the tests of the object store."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import boto3
import pytest
from moto.server import ThreadedMotoServer

ACCESS_KEY = "everloop-test"
SECRET_KEY = "everloop-test-secret"  # pragma: allowlist secret
REGION = "us-east-1"


@dataclass(frozen=True)
class S3Server:
    """A running server, and how to get a bucket of one's own."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str
    _numbers: Iterator[int]

    def create_bucket(self) -> str:
        """Create an empty bucket and return its name."""
        bucket = f"everloop-test-{next(self._numbers)}"
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
        )
        client.create_bucket(Bucket=bucket)
        client.close()
        return bucket


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[S3Server]:
    """Start an S3 server for this worker on a free loopback port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # Starting on a free port leaves a socket of the server's library behind; collected later, it
    # would fail whichever test happens to run then.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    yield S3Server(f"http://{host}:{port}", ACCESS_KEY, SECRET_KEY, REGION, count(1))
    server.stop()


@pytest.fixture
def s3_bucket(moto_s3: S3Server) -> str:
    """Give the test an empty bucket; the value is its name."""
    return moto_s3.create_bucket()
