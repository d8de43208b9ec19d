"""Which addresses a registry may lead to, and who gets its token on the way there."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from proxy_client.errors import SourceForbidden, SourceInvalid, SourceUnavailable
from storage_proxy.registries.hub_http import HubHttp
from storage_proxy.settings import ArtifactRegistrySection, TransferSection
from storage_proxy.transfer.connections import Address
from storage_proxy.transfer.line import Line
from storage_proxy.transfer.reach import Reach
from tests.transfer.conftest import Certificates
from tests.transfer.raw import Answerer, Peer, RawServer

TOKEN = "hf_secret"
PRIVATE = [
    *("127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.0.1", "100.64.0.1", "0.0.0.0"),  # noqa: S104
    *("169.254.169.254", "224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1"),
    *("::1", "::", "fe80::1", "fe80::1%lo", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "2002:7f00:1::"),
    *("2002:a00:1::1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b:1::8.8.8.8", "100::1", "2001::1"),
]
PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_out_of_reach(address: str) -> None:
    reach = Reach("hub", "192.0.2.77")
    with pytest.raises(SourceForbidden, match=r"artifact-registries\.hub\.private-addresses"):
        reach.places(address, 80)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_in_reach(address: str) -> None:
    assert Reach("hub", "192.0.2.77").places(address, 80)


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "2002:a01:203::1", "64:ff9b::a01:203"])
def test_a_listed_network_is_in_reach_and_no_other(address: str) -> None:
    reach = Reach("hub", "192.0.2.77", (ip_network("10.1.0.0/16"), ip_network("fd00::/8")))
    assert reach.places(address, 80)
    assert reach.places("fd00::5", 80)
    for other in ("10.2.0.1", "::ffff:10.2.0.1", "fc00::1"):
        with pytest.raises(SourceForbidden):
            reach.places(other, 80)


def test_the_registrys_own_address_is_in_reach_on_every_port() -> None:
    reach = Reach("hub", "127.0.0.1")
    for host, port in (("127.0.0.1", 80), ("127.0.0.1", 8080), ("::ffff:127.0.0.1", 443)):
        assert reach.places(host, port)
    with pytest.raises(SourceForbidden):
        reach.places("127.0.0.2", 80)


def test_a_name_is_judged_by_the_addresses_that_it_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"cdn": ["10.0.0.1", "8.8.8.8", "127.0.0.1"], "inside": ["10.0.0.1"], "hub": ["10.0.0.7"]}

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, 0, 0, "", (address, port)) for address in names.get(host, [host])]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    reach = Reach("hub", "hub")
    assert [str(place.address) for place in reach.places("cdn", 80)] == ["8.8.8.8"]
    assert [str(place.address) for place in reach.places("hub", 80)] == ["10.0.0.7"]
    with pytest.raises(SourceForbidden):
        reach.places("inside", 80)
    names["inside"] = ["10.0.0.7"]
    assert reach.places("inside", 80)


@pytest.mark.parametrize("name", ["", "no-such-host.invalid", "x" * 300, "a..b", "\N{SNOWMAN}" * 70])
def test_a_name_that_does_not_resolve_is_unavailable(name: str) -> None:
    with pytest.raises(SourceUnavailable, match="does not resolve"):
        Reach("hub", "127.0.0.1").places(name, 80)


# Redirects, between servers at several addresses of this machine.


@pytest.fixture
def serve() -> Iterator[Callable[..., RawServer]]:
    with ExitStack() as stack:
        yield lambda *args, **details: stack.enter_context(RawServer(*args, **details))


@pytest.fixture
def hub_http(tmp_path: Path) -> Iterator[Callable[..., HubHttp]]:
    with ExitStack() as stack:

        def opened(url: str, **details: Any) -> HubHttp:
            token = tmp_path / "token"
            token.write_text(f"{TOKEN}\n")
            section = ArtifactRegistrySection(url=url, token_file=token, **details)
            made = HubHttp("hub", section, TransferSection(connect_timeout=1.0, stall_timeout=1.0))
            stack.callback(made.close)
            return made

        yield opened


def get(hub: HubHttp, path: str = "/file") -> tuple[bytes, str]:
    """Return what is found and the address that gave it."""
    with hub.opened(hub.address(path), Line()) as (answer, found):
        return bytes(answer.read(1 << 20) or b""), str(found.url)


def saying(text: str) -> Answerer:
    return lambda peer: peer.answer(text.encode())


def redirecting(location: str, status: str = "302 Found") -> Answerer:
    return lambda peer: peer.answer(b"gone", status=status, headers=f"Location: {location}\r\n")


def told(server: RawServer) -> set[str | None]:
    return {asked.header("authorization") for asked in server.asked}


@pytest.mark.parametrize("status", ["301 x", "302 x", "303 x", "307 x", "308 x"])
def test_a_redirect_is_followed_and_the_token_stays_behind(
    serve: Callable[..., RawServer], hub_http: Callable[..., HubHttp], status: str
) -> None:
    cdn = serve(saying("bytes"))
    hub = serve(redirecting(f"{cdn.url}/signed?x=1", status))
    assert get(hub_http(hub.url)) == (b"bytes", f"{cdn.url}/signed?x=1")
    assert told(hub) == {f"Bearer {TOKEN}"}
    assert told(cdn) == {None}
    assert TOKEN not in cdn.asked[0].head


def test_a_redirect_within_the_endpoint_keeps_token_and_connection(
    serve: Callable[..., RawServer], hub_http: Callable[..., HubHttp]
) -> None:
    def answer(peer: Peer) -> None:
        (saying("here") if "/b" in peer.asked.head else redirecting("/b"))(peer)

    hub = serve(answer)
    assert get(hub_http(hub.url))[0] == b"here"
    assert told(hub) == {f"Bearer {TOKEN}"}
    assert hub.connections == 1


def test_the_token_goes_to_no_other_host_port_or_scheme(
    serve: Callable[..., RawServer], hub_http: Callable[..., HubHttp], certificates: Certificates
) -> None:
    others = [
        serve(saying("port")),
        serve(saying("host"), host="127.0.0.2"),
        serve(saying("scheme"), tls=certificates.server),
    ]
    for other in others:
        hub = serve(redirecting(f"{other.url}/x"))
        http = hub_http(hub.url, private_addresses=["127.0.0.2"], ca_file=certificates.ca_file)
        get(http)
        assert told(other) == {None}


def test_the_token_returns_with_a_redirect_home(
    serve: Callable[..., RawServer], hub_http: Callable[..., HubHttp]
) -> None:
    hub = serve(saying(""))
    away = serve(redirecting(f"{hub.url}/home"))
    hub.answerer = lambda peer: (
        saying("home") if "/home" in peer.asked.head else redirecting(f"{away.url}/x")
    )(peer)
    assert get(hub_http(hub.url))[0] == b"home"
    assert (told(hub), told(away)) == ({f"Bearer {TOKEN}"}, {None})


def test_a_redirect_to_another_private_host_is_not_followed(
    serve: Callable[..., RawServer], hub_http: Callable[..., HubHttp]
) -> None:
    inside = serve(saying("secret"), host="127.0.0.2")
    hub = serve(redirecting(f"{inside.url}/latest/meta-data"))
    with pytest.raises(SourceForbidden, match="private address"):
        get(hub_http(hub.url))
    assert inside.connections == 0
    assert get(hub_http(hub.url, private_addresses=["127.0.0.0/30"]))[0] == b"secret"


def test_a_name_that_changes_its_address_is_judged_by_the_one_that_is_connected(
    serve: Callable[..., RawServer], hub_http: Callable[..., HubHttp], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, cdn = serve(saying("secret"), host="127.0.0.2"), serve(saying("bytes"))
    real, turns = socket.getaddrinfo, iter([])

    def resolve(host: str, port: int, **details: Any) -> list[Any]:
        addresses = next(turns) if host == "rebinding.example" else [host]
        return [found for address in addresses for found in real(address, port, **details)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    own, private = ["127.0.0.1"], ["127.0.0.2"]
    hub = serve(redirecting(f"http://rebinding.example:{cdn.port}/x"))
    turns = iter([own, [*private, *own], private])
    for found in (b"bytes", b"bytes"):  # asked of both, of which one is the registry's own
        http = hub_http(hub.url)
        assert get(http)[0] == found
    with pytest.raises(SourceForbidden, match="private address"):
        get(hub_http(hub.url))
    # Were the name looked up once to judge and once more to connect, the second one would count.
    turns = iter([private, own])
    hub.answerer = redirecting(f"http://rebinding.example:{inside.port}/latest/meta-data")
    with pytest.raises(SourceForbidden):
        get(hub_http(hub.url))
    assert inside.connections == 0
    assert cdn.connections == 2


def test_a_kept_connection_is_of_no_use_to_another_registry(
    serve: Callable[..., RawServer], hub_http: Callable[..., HubHttp]
) -> None:
    inside = serve(saying("secret"), host="127.0.0.2")
    home = hub_http(inside.url)  # the registry lies there itself
    assert get(home)[0] == b"secret"
    hub = serve(redirecting(f"{inside.url}/x"))
    with pytest.raises(SourceForbidden):
        get(hub_http(hub.url))
    assert inside.connections == 1


@pytest.mark.parametrize("count", [5, 6])
def test_five_redirects_are_followed_and_no_more(
    serve: Callable[..., RawServer], hub_http: Callable[..., HubHttp], count: int
) -> None:
    def answer(peer: Peer) -> None:
        number = int(peer.asked.head.split()[1].strip("/"))
        (saying("end") if number == count else redirecting(f"/{number + 1}"))(peer)

    http = hub_http(serve(answer).url)
    if count == 5:
        assert get(http, "/0")[0] == b"end"
    else:
        with pytest.raises(SourceInvalid, match="more than 5 times"):
            get(http, "/0")


def test_a_loop_ends(serve: Callable[..., RawServer], hub_http: Callable[..., HubHttp]) -> None:
    hub = serve(redirecting("/file"))
    with pytest.raises(SourceInvalid, match="redirects"):
        get(hub_http(hub.url))
    assert len(hub.asked) == 6


@pytest.mark.parametrize(
    "location",
    [
        *("ftp://127.0.0.1/x", "file:///etc/passwd", "gopher://127.0.0.1:70/x", "javascript:alert(1)"),
        *("http://127.0.0.1:99999/", "http://[::1/", "http://127.0.0.1:x/", "data:,x"),
    ],
)
def test_a_redirect_to_no_http_address_is_refused(
    serve: Callable[..., RawServer], hub_http: Callable[..., HubHttp], location: str
) -> None:
    hub = serve(redirecting(location))
    with pytest.raises(SourceInvalid):
        get(hub_http(hub.url))
    assert len(hub.asked) == 1


@pytest.mark.parametrize("location", ["http:///x", "http://a b/", "http://no-such-host.invalid/"])
def test_a_redirect_to_no_host_is_a_clear_error(
    serve: Callable[..., RawServer], hub_http: Callable[..., HubHttp], location: str
) -> None:
    hub = serve(redirecting(location))
    with pytest.raises((SourceInvalid, SourceUnavailable)):
        get(hub_http(hub.url))


def test_a_redirect_from_https_to_http_is_refused(
    serve: Callable[..., RawServer], hub_http: Callable[..., HubHttp], certificates: Certificates
) -> None:
    plain = serve(saying("bytes"))
    hub = serve(redirecting(f"{plain.url}/x"), tls=certificates.server)
    with pytest.raises(SourceInvalid, match="unprotected"):
        get(hub_http(hub.url, ca_file=certificates.ca_file))
    assert plain.connections == 0


def test_a_redirect_without_a_location_is_a_wrong_answer(
    serve: Callable[..., RawServer], hub_http: Callable[..., HubHttp]
) -> None:
    hub = serve(lambda peer: peer.answer(b"", status="302 Found"))
    with pytest.raises(SourceInvalid, match="answered 302"):
        get(hub_http(hub.url))


def test_a_token_that_the_registry_repeats_is_not_quoted(
    serve: Callable[..., RawServer], hub_http: Callable[..., HubHttp]
) -> None:
    said = f"X-Error-Code: {TOKEN}\r\nX-Error-Message: your token {TOKEN} is no good\r\n"
    hub = serve(lambda peer: peer.answer(b"", status="403 Forbidden", headers=said))
    with pytest.raises(SourceForbidden, match="is no good") as caught:
        get(hub_http(hub.url))
    assert TOKEN not in caught.value.message


def test_an_endpoint_below_a_path_is_asked_there(
    serve: Callable[..., RawServer], hub_http: Callable[..., HubHttp]
) -> None:
    hub = serve(saying("x"))
    assert get(hub_http(f"{hub.url}/mirror/hf/"), "/api") == (b"x", f"{hub.url}/mirror/hf/api")


def test_an_address_says_its_port_only_where_it_must() -> None:
    written = [
        "http://a/x?y",
        "http://a:8080/",
        "https://a:443/",
        "https://a:80/",
        "http://[::1]:81/",
        "http://[::1]/",
    ]
    assert [Address.of(url).authority for url in written] == ["a", "a:8080", "a", "a:80", "[::1]:81", "[::1]"]
    assert str(Address.of("http://a/x?y").url) == "http://a/x?y"
