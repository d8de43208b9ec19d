"""AWS Signature Version 4, as S3 uses it: in headers, and in the query of a URL that somebody else may use.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html and sigv4-query-string-auth.html.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
LONGEST_PRESIGNED = 7 * 24 * 3600  # seconds; what the protocol allows

_ALGORITHM = "AWS4-HMAC-SHA256"
_SERVICE = "s3"


@dataclass(frozen=True)
class Credentials:
    """Who asks. Secrets are in no repr."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Target:
    """What is asked: `path` is percent-encoded (see `encode_path`), `query` is not."""

    method: str
    host: str
    path: str
    query: Mapping[str, str]


def encode_path(path: str) -> str:
    """Percent-encode a path for a URL, the way the signature wants it: everything but unreserved characters and "/"."""
    return quote(path, safe="/-._~")


def encode_query(query: Mapping[str, str]) -> str:
    """Write a query the way the signature wants it: sorted, everything but unreserved characters percent-encoded."""
    pairs = sorted((quote(key, safe="-._~"), quote(value, safe="-._~")) for key, value in query.items())
    return "&".join(f"{key}={value}" for key, value in pairs)


def signed_headers(
    target: Target,
    headers: Mapping[str, str],
    payload_sha256: str,
    credentials: Credentials,
    region: str,
    now: datetime,
) -> dict[str, str]:
    """Return `headers` with those that prove who sends them, and that the body is the one of this hash.

    `now` is in UTC. Every header is signed, so none may change on its way.
    """
    sent = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    sent |= {"host": target.host, "x-amz-content-sha256": payload_sha256, "x-amz-date": _stamp(now)}
    if credentials.session_token:
        sent["x-amz-security-token"] = credentials.session_token
    names = ";".join(sorted(sent))
    signature = _sign(
        target,
        target.query,
        {name: sent[name] for name in sorted(sent)},
        payload_sha256,
        credentials,
        region,
        now,
    )
    scope = f"{credentials.access_key}/{_scope(region, now)}"
    sent["authorization"] = f"{_ALGORITHM} Credential={scope}, SignedHeaders={names}, Signature={signature}"
    return sent


def presigned_query(
    target: Target, expires: int, credentials: Credentials, region: str, now: datetime
) -> dict[str, str]:
    """Return the query that lets whoever has it do this one thing for `expires` seconds, without credentials."""
    query = dict(target.query) | {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{credentials.access_key}/{_scope(region, now)}",
        "X-Amz-Date": _stamp(now),
        "X-Amz-Expires": str(expires),
        "X-Amz-SignedHeaders": "host",
    }
    if credentials.session_token:
        query["X-Amz-Security-Token"] = credentials.session_token
    signature = _sign(target, query, {"host": target.host}, "UNSIGNED-PAYLOAD", credentials, region, now)
    return query | {"X-Amz-Signature": signature}


def _sign(
    target: Target,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    payload_sha256: str,
    credentials: Credentials,
    region: str,
    now: datetime,
) -> str:
    canonical = "\n".join(
        [
            target.method,
            target.path,
            encode_query(query),
            *(f"{name}:{value}" for name, value in headers.items()),
            "",
            ";".join(headers),
            payload_sha256,
        ]
    )
    to_sign = "\n".join(
        [_ALGORITHM, _stamp(now), _scope(region, now), hashlib.sha256(canonical.encode()).hexdigest()]
    )
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (f"{now:%Y%m%d}", region, _SERVICE, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, to_sign.encode(), "sha256").hex()


def _stamp(now: datetime) -> str:
    return f"{now:%Y%m%dT%H%M%SZ}"


def _scope(region: str, now: datetime) -> str:
    return f"{now:%Y%m%d}/{region}/{_SERVICE}/aws4_request"
