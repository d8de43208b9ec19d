"""What the client does with answers, good and bad."""

import hashlib
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

from proxy_client.errors import (
    BadRequest,
    DiskFull,
    NotFound,
    QuotaExceeded,
    ReadOnlyStorage,
    StorageError,
    StorageFailure,
    Unavailable,
)
from storage_proxy.settings import S3StorageSection
from storage_proxy.storages.s3 import MOST_PARTS, S3Client
from storage_proxy.storages.s3_answers import AccessDenied, NoSuchUpload, ObjectChanged, parse
from storage_proxy.storages.s3_requests import read_credentials
from storage_proxy.storages.s3_signing import Credentials
from tests.s3.place import Bucket
from tests.s3.server import S3Server
from tests.s3.stand_in import stand_in

OK = (200, {"ETag": '"e"'}, b"")


def error(status: int, code: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>the-secret</Message></Error>"
    return status, headers, body.encode()


# A real server.


def test_a_key_of_any_letters_comes_back_as_it_was(bucket: Bucket) -> None:
    keys = ["a b/c+d%20&=?.txt", "ünïcode/한글/e\u0301", "~(x)*'!,;:@$", "\ufffe"]
    for key in keys:
        bucket.client.put(key, key.encode())
    assert sorted(found.key for found in bucket.client.objects("")) == sorted(keys)
    for key in keys:
        assert b"".join(bucket.client.stream(key)) == key.encode()
        bucket.client.copy(key, f"copy/{key}", 1, {})
    bucket.client.delete_many([f"copy/{key}" for key in keys[:3]])
    assert [found.key for found in bucket.client.objects("copy/")] == [f"copy/{keys[3]}"]


def test_a_body_that_is_not_what_was_signed_is_refused(bucket: Bucket) -> None:
    with pytest.raises(StorageFailure, match="SHA256"):
        bucket.client.put("a", b"damaged", sha256=hashlib.sha256(b"sent").hexdigest())
    assert bucket.client.head("a") is None


def test_wrong_keys_are_refused_and_never_shown(s3_server: S3Server, bucket: Bucket) -> None:
    client = S3Client(bucket.section, "s", lambda: Credentials("test:tester", "not-the-secret"))
    with pytest.raises(ReadOnlyStorage, match="check the keys") as raised:
        client.put("a", b"x")
    assert "not-the-secret" not in str(raised.value)
    client.close()
    missing = s3_server.client("no-such-bucket")
    with pytest.raises(StorageFailure, match="bucket is not there"):
        list(missing.objects(""))
    missing.close()


def test_an_object_that_changed_is_not_read_on(bucket: Bucket) -> None:
    etag = bucket.client.put("a", b"first")
    bucket.client.put("a", b"second")
    with pytest.raises(ObjectChanged):
        list(bucket.client.stream("a", etag=etag))
    with pytest.raises(NotFound):
        list(bucket.client.stream("none"))


def test_a_large_object_is_copied_in_parts(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * (48 << 10)  # 12 MiB
    bucket.client.put("a", content)
    monkeypatch.setattr("storage_proxy.storages.s3.LARGEST_COPY", 8 << 20)
    monkeypatch.setattr("storage_proxy.storages.s3._COPIED_PART", 5 << 20)
    etag = bucket.client.copy("a", "b", len(content), {"mine": "yes"})
    assert etag.endswith("-3")
    assert b"".join(bucket.client.stream("b")) == content
    head = bucket.client.head("b")
    assert head is not None
    assert head.metadata["mine"] == "yes"


def test_an_upload_that_is_aborted_or_unknown_is_said_so(bucket: Bucket) -> None:
    upload = bucket.client.create_upload("a", {})
    assert [found.upload_id for found in bucket.client.list_uploads("")] == [upload]
    etag = bucket.client.upload_part("a", upload, 1, b"x")
    bucket.client.abort("a", upload)
    bucket.client.abort("a", upload)
    assert list(bucket.client.list_uploads("")) == []
    with pytest.raises(NoSuchUpload):
        bucket.client.list_parts("a", upload)
    with pytest.raises(NoSuchUpload):
        bucket.client.complete("a", upload, [(1, etag)])


def test_a_signed_url_needs_no_keys_and_does_one_thing(bucket: Bucket) -> None:
    url = bucket.client.presign("PUT", "ü b/a", 60)
    assert httpx.put(url, content=b"theirs").status_code == 200
    assert httpx.get(url).status_code == 403
    assert httpx.get(bucket.client.presign("GET", "ü b/a", 60)).content == b"theirs"
    with pytest.raises(BadRequest, match="604800"):
        bucket.client.presign("GET", "a", 604_801)


# Answers that a real server gives on bad days only.


def test_a_server_that_asks_to_slow_down_is_asked_again_when_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("storage_proxy.storages.s3_requests.pause", pauses.append)
    with stand_in(error(503, "SlowDown", **{"Retry-After": "17"}), error(500, "InternalError"), OK) as server:
        assert server.client.put("a", b"x") == "e"
        assert len(server.seen) == 3
    assert pauses[0] == 17
    assert 0 < pauses[1] < 1


def test_patience_ends() -> None:
    with (
        stand_in(error(503, "SlowDown"), retries=1) as server,
        pytest.raises(StorageFailure, match="503 SlowDown"),
    ):
        server.client.put("a", b"x")
    assert len(server.seen) == 2
    with (
        stand_in(error(503, "SlowDown", **{"Retry-After": "3600"})) as server,
        pytest.raises(StorageFailure),
    ):
        server.client.put("a", b"x")
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error(403, "AccessDenied"), AccessDenied),
        (error(403, "InvalidAccessKeyId"), ReadOnlyStorage),
        (error(404, "NoSuchKey"), NotFound),
        (error(404, "NoSuchBucket"), StorageFailure),
        (error(413, "EntityTooLarge"), QuotaExceeded),
        (error(403, "QuotaExceeded"), QuotaExceeded),
        (error(507, "XMinioStorageFull"), DiskFull),
        (error(301, "PermanentRedirect"), StorageFailure),
        (error(403, "RequestTimeTooSkewed"), StorageFailure),
        (error(200, "InvalidPart"), StorageFailure),
        ((400, {}, b"<html>"), StorageFailure),
    ],
)
def test_what_will_not_pass_is_not_repeated_and_has_its_class(
    reply: tuple[int, dict[str, str], bytes], kind: type[StorageError]
) -> None:
    with stand_in(reply) as server, pytest.raises(kind) as raised:
        server.client.put("the/key", b"x")
    assert type(raised.value) is kind
    assert len(server.seen) == 1
    for secret in ("the-secret", "the-key", "the/key", "Signature", "127.0.0.1"):
        assert secret not in str(raised.value)


@pytest.mark.parametrize(
    "body",
    [
        b'<!DOCTYPE a [<!ENTITY b "bbbb">]><ListBucketResult>&b;</ListBucketResult>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a><a/>'.encode("utf-16"),
        b"<a",
        b"",
        b"\xff",
    ],
)
def test_an_answer_that_declares_anything_is_refused(body: bytes) -> None:
    with pytest.raises(StorageFailure):
        parse(body, "testing")


def page(keys: list[str], token: str | None) -> tuple[int, dict[str, str], bytes]:
    entries = "".join(
        f"<Contents><Key>{key}</Key><Size>1</Size><ETag>&quot;e&quot;</ETag>"
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for key in keys
    )
    more = (
        f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
        if token
        else ""
    )
    xmlns = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    told = f"<ListBucketResult {xmlns}><EncodingType>url</EncodingType>{entries}{more}</ListBucketResult>"
    return 200, {}, told.encode()


def test_a_listing_of_many_pages_is_read_to_its_end() -> None:
    with stand_in(page(["a+b", "a%2Bb"], "t/1"), page(["%C3%BC"], None)) as server:
        assert [found.key for found in server.client.objects("")] == ["a b", "a+b", "ü"]
    assert "continuation-token=t%2F1" in server.seen[1][1]


def cut(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "10")
    request.send_header("ETag", '"e"')
    request.end_headers()
    request.wfile.write(b"01234")
    request.wfile.flush()
    request.close_connection = True
    request.connection.close()


def test_a_body_that_breaks_off_is_read_on_where_it_broke() -> None:
    rest = (206, {"Content-Range": "bytes 5-9/10", "ETag": '"e"'}, b"56789")
    with stand_in(cut, rest) as server:
        assert b"".join(server.client.stream("a")) == b"0123456789"
    assert server.seen[1][2]["range"] == "bytes=5-"
    assert server.seen[1][2]["if-match"] == '"e"'


def test_a_body_that_breaks_off_for_ever_ends_in_an_error() -> None:
    def nothing(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        request.connection.close()

    with (
        stand_in(cut, nothing, retries=1) as server,
        pytest.raises(StorageFailure, match="no answer"),
    ):
        list(server.client.stream("a"))
    assert len(server.seen) == 2


def test_a_server_that_tells_another_checksum_is_not_believed() -> None:
    with (
        stand_in((200, {"ETag": '"e"', "x-amz-checksum-sha256": "AAAA"}, b"")) as server,
        pytest.raises(StorageFailure, match="other bytes"),
    ):
        server.client.put("a", b"x")


def test_a_silent_server_is_left_in_bounded_time() -> None:
    def silent(request: BaseHTTPRequestHandler) -> None:
        time.sleep(1)
        request.close_connection = True

    with (
        stand_in(silent, retries=0, **{"stall-timeout": 0.2}) as server,
        pytest.raises(StorageFailure, match="ReadTimeout"),
    ):
        server.client.head("a")


def test_the_bucket_stands_in_the_host_or_in_the_path() -> None:
    def url(**settings: object) -> str:
        values = {"type": "s3", "endpoint": "https://s3.example.org:9000", "bucket": "models", **settings}
        section = S3StorageSection.model_validate(values)
        client = S3Client(section, "s", lambda: Credentials("k", "s"))
        try:
            return client.presign("GET", "a b", 60).partition("?")[0]
        finally:
            client.close()

    assert url() == "https://s3.example.org:9000/models/a%20b"
    assert url(addressing="virtual-host") == "https://models.s3.example.org:9000/a%20b"


def test_keys_come_from_files_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    values = {"type": "s3", "endpoint": "http://s3", "bucket": "models"}
    bare = S3StorageSection.model_validate(values)
    with pytest.raises(Unavailable, match="AWS_ACCESS_KEY_ID"):
        read_credentials(bare, "artifact storage s")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ek")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "es")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "et")
    assert read_credentials(bare, "s") == Credentials("ek", "es", "et")
    (tmp_path / "key").write_text("fk\n")
    (tmp_path / "secret").write_text("fs\n")
    files = S3StorageSection.model_validate(
        {**values, "access-key-file": tmp_path / "key", "secret-key-file": tmp_path / "secret"}
    )
    assert read_credentials(files, "s") == Credentials("fk", "fs", None)


def test_there_are_never_more_parts_than_the_protocol_allows() -> None:
    assert MOST_PARTS < 10_000
