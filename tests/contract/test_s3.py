"""What is special about buckets: prefixes, parts, and servers that overwrite what was kept."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from everloop.core.digest import content_digest
from everloop.core.errors import InvalidInput, Unavailable
from everloop.storage import s3
from everloop.storage.s3 import S3BlobStore
from tests.contract.test_blobs import open_s3
from tests.parts.s3 import S3Server


def test_stores_under_two_prefixes_of_a_bucket_do_not_see_each_other(
    moto_s3: S3Server, s3_bucket: str
) -> None:
    one, two = open_s3(moto_s3, s3_bucket, "/one"), open_s3(moto_s3, s3_bucket, "/two")

    digest = one.put(b"data")

    assert [digest] == list(one.digests())
    assert [] == list(two.digests())


def test_a_bucket_is_opened_again(moto_s3: S3Server, s3_bucket: str) -> None:
    digest = open_s3(moto_s3, s3_bucket).put(b"data")

    assert b"data" == open_s3(moto_s3, s3_bucket).get(digest)


def test_a_missing_bucket_is_unavailable(moto_s3: S3Server) -> None:
    with pytest.raises(Unavailable, match=r"blob\.unavailable"):
        open_s3(moto_s3, "no-such-bucket")


@pytest.mark.parametrize("url", ["", "s3://", "https://bucket", "bucket", "file:///tmp"])
def test_another_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"blobs\.unknown"):
        S3BlobStore(url)


def test_pieces_that_changed_on_their_way_are_not_completed(
    moto_s3: S3Server, s3_bucket: str
) -> None:
    store = open_s3(moto_s3, s3_bucket)
    digest = content_digest(b"what was hashed first")

    with pytest.raises(InvalidInput, match=r"file\.changed"):
        store._put_parts(digest, iter([b"x" * s3.PART_BYTES, b"y"]), s3.PART_BYTES + 1)

    assert store.size(digest) is None


class Careless:
    """A server that ignores the condition of a put, as weak imitations of S3 do."""

    def __init__(self) -> None:
        self._inner = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        environ.pop("HTTP_IF_NONE_MATCH", None)
        answer: Iterable[bytes] = self._inner(environ, start)
        return answer


@pytest.fixture
def careless_endpoint() -> Iterator[str]:
    server = make_server("127.0.0.1", 0, Careless(), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_that_overwrites_is_refused(
    careless_endpoint: str, moto_s3: S3Server, s3_bucket: str
) -> None:
    options = {
        "endpoint": careless_endpoint,
        "access_key_id": moto_s3.access_key,
        "secret_access_key": moto_s3.secret_key,
        "region": moto_s3.region,
    }

    with pytest.raises(InvalidInput, match=r"blobs\.no_create_only"):
        S3BlobStore(f"s3://{s3_bucket}", options)
