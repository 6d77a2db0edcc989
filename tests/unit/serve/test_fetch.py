from __future__ import annotations

from pathlib import Path

import boto3
import pytest

from everloop.core.errors import EverloopError
from everloop.serve.fetch import fetch_bundles
from tests.parts.s3 import S3Server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "credit").mkdir(parents=True)
    (folder / "credit" / "bundle.json").write_bytes(b"{}")
    (folder / "credit" / "model.txt").write_bytes(b"tree" * 1000)
    return folder


def test_everything_under_an_address_is_fetched(source: Path, tmp_path: Path) -> None:
    found = fetch_bundles(source.as_uri(), tmp_path / "here")

    assert tmp_path / "here" == found
    assert b"tree" * 1000 == (found / "credit" / "model.txt").read_bytes()


def test_a_bucket_gives_what_lies_under_its_prefix(
    moto_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = moto_s3.create_bucket()
    client = boto3.client(
        "s3",
        endpoint_url=moto_s3.endpoint,
        aws_access_key_id=moto_s3.access_key,
        aws_secret_access_key=moto_s3.secret_key,
        region_name=moto_s3.region,
    )
    for key in ("models/1/bundle.json", "models/1/model.txt", "models/10/bundle.json"):
        client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    client.close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_s3.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto_s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto_s3.secret_key)
    monkeypatch.setenv("AWS_REGION", moto_s3.region)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")

    found = fetch_bundles(f"s3://{bucket}/models/1", tmp_path / "here")

    names = sorted(path.relative_to(found).as_posix() for path in found.rglob("*"))
    assert ["bundle.json", "model.txt"] == names
    assert b"models/1/model.txt" == (found / "model.txt").read_bytes()


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("nonsense", "serving.address_invalid"),
        ("ftp://host/path", "serving.address_invalid"),
        ("gs://no bucket/x", "serving.address_invalid"),
    ],
)
def test_an_address_that_is_none_is_refused(address: str, code: str, tmp_path: Path) -> None:
    with pytest.raises(EverloopError) as refused:
        fetch_bundles(address, tmp_path)

    assert code == refused.value.code


def test_a_place_without_a_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(EverloopError) as refused:
        fetch_bundles((tmp_path / "empty").as_uri(), tmp_path / "here")

    assert "serving.model_missing" == refused.value.code
    assert not (tmp_path / "here").exists()
