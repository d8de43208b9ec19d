"""A source that misbehaves while a file comes over several connections: exact bytes, or a clear failure in bounded time."""

import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from stowage.hub.content import lfs_pointer
from tests.e2e.world import Files, Model
from tests.faults.hub import FaultHub, Rule
from tests.proxy.running import MIB, Proxy

pytestmark = pytest.mark.anyio

TRANSFER = "stall-timeout = 1.0\nrate-window = 1.5\nminimum-rate = 100000"
BUCKETS = ()
RETRIES = 3
SIZE = 20 * MIB + 3  # three parts
BIG = "weights/big.bin"
FILES: Files = {BIG: SIZE, "config.json": b"{}", "empty": b""}
DICE = random.Random(16)  # noqa: S311 -- seeded moments
SOON = format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True)
PAST = format_datetime(datetime.now(UTC) - timedelta(minutes=1), usegmt=True)

PASSING = {
    "no ranges": Rule(ignore_range=True),
    "no ranges, and cut": Rule(ignore_range=True, drop_after=11 * MIB, times=2),
    "another range": Rule(content_range=f"bytes 17-99/{SIZE}", times=2),
    "too short": Rule(resize=-5, times=2),
    "too long": Rule(resize=+5, times=2),
    "no length": Rule(chunked=True),
    "no length, too long": Rule(chunked=True, resize=+5, times=2),
    "no length, cut": Rule(chunked=True, drop_after=3 * MIB, times=2),
    "hangs up": Rule(hang_up=True, times=2),
    "stalls": Rule(stall_after=5 * MIB + 1, times=2),
    "one byte is another": Rule(flip_at=9 * MIB, times=1),
    "429, a second": Rule(status=429, headers={"retry-after": "1"}, times=2),
    "503, a date": Rule(status=503, headers={"retry-after": PAST}, times=2),
    "429, no word when": Rule(status=429, times=2),
    "503, no word when": Rule(status=503, times=2),
    "500": Rule(status=500, times=2),
    "404": Rule(status=404, times=2),
    "403": Rule(status=403, headers={"x-error-code": "GatedRepo"}, times=2),
    "HTML": Rule(html=True, times=2),
    "encoded": Rule(headers={"content-encoding": "gzip"}, times=2),
    "another commit": Rule(headers={"x-repo-commit": "f" * 40}, times=2),
    **{
        f"a reset after {cut} bytes": Rule(drop_after=cut, reset=True, times=2)
        for cut in (0, 1, *sorted(DICE.randrange(2, 8 * MIB) for _ in range(2)))
    },
}
LASTING = {
    "404": (Rule(status=404, headers={"x-error-code": "EntryNotFound"}), "SOURCE_NOT_FOUND", "EntryNotFound"),
    "410": (Rule(status=410), "SOURCE_NOT_FOUND", "410"),
    "401": (Rule(status=401, headers={"x-error-code": "Unauthorized"}), "SOURCE_FORBIDDEN", "Unauthorized"),
    "403": (Rule(status=403), "SOURCE_FORBIDDEN", "403"),
    "gated": (
        Rule(status=403, headers={"x-error-code": "GatedRepo", "x-error-message": "ask for access"}),
        "SOURCE_FORBIDDEN",
        "GatedRepo: ask for access",
    ),
    "429": (Rule(status=429), "SOURCE_UNAVAILABLE", "429"),
    "429, tomorrow": (Rule(status=429, headers={"retry-after": "86400"}), "SOURCE_UNAVAILABLE", "429"),
    "503": (Rule(status=503), "SOURCE_UNAVAILABLE", "503"),
    "another range": (Rule(content_range=f"bytes 17-99/{SIZE}"), "SOURCE_INVALID", "another range"),
    "too short": (Rule(resize=-5), "SOURCE_INVALID", "announces"),
    "too long": (Rule(resize=+5), "SOURCE_INVALID", "announces"),
    "HTML": (Rule(html=True), "SOURCE_INVALID", "announces"),
    "encoded": (Rule(headers={"content-encoding": "gzip"}), "SOURCE_INVALID", "encodes"),
    "a loop": (Rule(redirect="{path}"), "SOURCE_INVALID", "redirects more than"),
    "another commit": (Rule(headers={"x-repo-commit": "f" * 40}), "SOURCE_CHANGED", "f" * 40),
    "another ETag": (Rule(headers={"x-linked-etag": f'"{"e" * 64}"'}), "SOURCE_CHANGED", "e" * 64),
    "resets": (Rule(drop_after=0, reset=True), "SOURCE_UNAVAILABLE", ""),
    "hangs up": (Rule(hang_up=True), "SOURCE_UNAVAILABLE", ""),
    "stalls": (Rule(stall_after=0), "SOURCE_UNAVAILABLE", "timeout"),
    "trickles": (Rule(rate=3000), "SOURCE_UNAVAILABLE", "less than 100000 bytes per second"),
}


def at(model: Model, rule: Rule) -> Rule:
    rule.path = f"{model.id}/resolve/.*big.bin"
    return rule


@pytest.mark.parametrize("fault", PASSING)
async def test_what_passes_ends_with_the_exact_bytes(proxy: Proxy, fault: str) -> None:
    model = proxy.model(FILES)
    proxy.hub.set(at(model, PASSING[fault]))

    report = await proxy.succeeded(await proxy.order(model, "folder", "folder", "folder", force=True))

    assert await proxy.digests("folder", model) == model.digests
    assert report.bytes_done == report.bytes_total
    assert PASSING[fault].times in {None, 0}


@pytest.mark.parametrize("fault", LASTING)
async def test_what_lasts_fails_with_its_code_in_bounded_time(proxy: Proxy, fault: str) -> None:
    rule, code, told = LASTING[fault]
    model = proxy.model(FILES)
    proxy.hub.set(at(model, rule))

    message = await proxy.failed(await proxy.order(model, "folder", "folder", "folder", force=True), code, 30)

    assert told in message
    assert await proxy.digests("folder", model) == {}


async def test_retries_never_stack(proxy: Proxy) -> None:
    model = proxy.model({BIG: MIB})
    proxy.hub.set(at(model, Rule(status=500)))
    await proxy.failed(await proxy.order(model, "folder", "folder", "folder"), "SOURCE_UNAVAILABLE")
    assert len(proxy.hub.downloads(model.id)) == 1 + RETRIES


async def test_a_wrong_byte_that_lasts_is_told_with_both_digests_after_one_more_try(proxy: Proxy) -> None:
    model = proxy.model(FILES)
    right = model.file(BIG)
    wrong = right[:MIB] + bytes([right[MIB] ^ 0xFF]) + right[MIB + 1 :]
    proxy.hub.set(at(model, Rule(flip_at=MIB)))

    message = await proxy.failed(await proxy.order(model, "folder", "folder", "folder"), "DIGEST_MISMATCH")

    for content in (right, wrong):
        assert hashlib.sha256(content).hexdigest() in message
    assert proxy.hub.sent("big.bin") == 2 * SIZE


async def test_a_pointer_in_the_place_of_the_content_is_no_content(proxy: Proxy) -> None:
    model = proxy.model(FILES)
    pointer = lfs_pointer(model.digests[BIG], SIZE)
    proxy.hub.set(at(model, Rule(serve=pointer)))
    await proxy.failed(await proxy.order(model, "folder", "folder", "folder"), "SOURCE_INVALID")


# What a hub redirects to.


@pytest.fixture
def cdn(proxy: Proxy) -> Iterator[FaultHub]:
    """Another host with the same files."""
    with FaultHub(proxy.hub.directory) as cdn:
        yield cdn


async def test_a_signed_address_that_expires_mid_way_is_asked_for_again(proxy: Proxy, cdn: FaultHub) -> None:
    model = proxy.model(FILES)
    proxy.hub.set(
        at(model, Rule(redirect=f"{cdn.url}{{path}}?signature=old", times=2)),
        at(model, Rule(redirect=f"{cdn.url}{{path}}?signature=new")),
    )
    cdn.set(
        Rule(path="signature=old", times=2, drop_after=5 * MIB),
        Rule(path="signature=old", status=403),
    )

    await proxy.succeeded(await proxy.order(model, "folder", "folder", "folder"))

    assert await proxy.digests("folder", model) == model.digests
    assert [request.status for request in cdn.seen("signature=old")][2:] != []
    assert all(request.status == 403 for request in cdn.seen("signature=old")[2:])
    assert all(request.range_start for request in cdn.seen("signature=new") if request.sent < 8 * MIB)
    assert not any("authorization" in request.headers for request in cdn.requests)


# What changes.


async def test_a_branch_that_moves_between_listing_and_bytes_gives_no_mixture(proxy: Proxy) -> None:
    model = proxy.model(FILES)
    before = dict(model.digests)
    newer: Files = {**FILES, "config.json": b'{"newer": 1}', "more.bin": 4000}
    proxy.hub.set(Rule(path=f"{model.id}/tree/", call_after=(1, lambda: model.becomes(newer))))

    await proxy.failed(await proxy.order(model, "folder", "folder", "folder"), "SOURCE_CHANGED")

    assert await proxy.digests("folder", model) == {}
    proxy.hub.clear()
    await proxy.succeeded(await proxy.order(model, "folder", "folder", "folder"))
    assert await proxy.digests("folder", model) == model.digests != before
