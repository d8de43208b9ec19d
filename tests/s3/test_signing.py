"""The signature, against the examples that its authors publish.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html and sigv4-query-string-auth.html
"""

import hashlib
from datetime import UTC, datetime

import pytest

from storage_proxy.storages.s3_signing import (
    EMPTY_SHA256,
    Credentials,
    Target,
    encode_path,
    presigned_query,
    signed_headers,
)

KEYS = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
NOW = datetime(2013, 5, 24, tzinfo=UTC)
HOST = "examplebucket.s3.amazonaws.com"


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "body", "signature"),
    [
        (
            "GET",
            "/test.txt",
            {},
            {"Range": "bytes=0-9"},
            b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test$file.text",
            {},
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            "/",
            {"lifecycle": ""},
            {},
            b"",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            "/",
            {"prefix": "J", "max-keys": "2"},
            {},
            b"",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_the_published_examples_are_signed_as_published(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes, signature: str
) -> None:
    target = Target(method, HOST, encode_path(path), query)
    payload = hashlib.sha256(body).hexdigest() if body else EMPTY_SHA256
    signed = signed_headers(target, headers, payload, KEYS, "us-east-1", NOW)
    assert signed["authorization"].endswith(f"Signature={signature}")


def test_the_published_url_is_signed_as_published() -> None:
    query = presigned_query(Target("GET", HOST, "/test.txt", {}), 86400, KEYS, "us-east-1", NOW)
    assert query["X-Amz-Signature"] == "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"


def test_temporary_keys_send_their_token() -> None:
    keys = Credentials("a", "b", "the-token")
    headers = signed_headers(Target("GET", HOST, "/", {}), {}, EMPTY_SHA256, keys, "us-east-1", NOW)
    assert headers["x-amz-security-token"] == "the-token"
    assert "x-amz-security-token" in headers["authorization"]
    query = presigned_query(Target("GET", HOST, "/", {}), 60, keys, "us-east-1", NOW)
    assert query["X-Amz-Security-Token"] == "the-token"


def test_no_secret_is_in_a_repr() -> None:
    assert "secret" not in repr(Credentials("key", "secret", "secret-token"))
