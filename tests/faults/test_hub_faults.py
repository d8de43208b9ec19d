import collections
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests.faults.hub import FaultHub, Rule
from tests.faults.models import digest_tree, make_model, seeded

SIZE = 300_000
FILE = "/org/model/resolve/main/w.bin"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FaultHub]:
    make_model(tmp_path, "org/model", {"w.bin": SIZE, "README.md": b"# hello"})
    with FaultHub(tmp_path) as running:
        yield running


@pytest.fixture
def client(hub: FaultHub) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=hub.url, trust_env=False, timeout=5) as opened:
        yield opened


CONTENT = seeded("org/model@main:w.bin", SIZE)


def test_without_a_rule_it_is_a_hub(hub: FaultHub, client: httpx.Client) -> None:
    assert client.get(FILE).content == CONTENT
    (request,) = hub.downloads()
    hub.wait_for(lambda: request.done and not request.open)
    assert (request.path, request.status, request.sent) == (FILE, 200, SIZE)
    assert request.headers["host"] == hub.url.removeprefix("http://")


def test_a_status_with_headers_applies_as_often_as_it_says(hub: FaultHub, client: httpx.Client) -> None:
    hub.set(Rule(path="/resolve/", status=503, headers={"Retry-After": "7"}, times=2))
    answers = [client.get(FILE) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].headers["retry-after"] == "7"


def test_the_first_matching_rule_decides(hub: FaultHub, client: httpx.Client) -> None:
    hub.set(Rule(method="HEAD", status=500), Rule(path=r"w\.bin", status=404), Rule(status=410))
    statuses = [client.head(FILE), client.get(FILE), client.get("/api/models")]
    assert [answer.status_code for answer in statuses] == [500, 404, 410]


def test_a_page_of_html_comes_as_a_good_answer(hub: FaultHub, client: httpx.Client) -> None:
    hub.set(Rule(html=True))
    answer = client.get("/api/models/org/model")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.text.startswith("<!doctype html>")


def test_a_dropped_connection_ends_after_exactly_so_many_bytes(hub: FaultHub, client: httpx.Client) -> None:
    hub.set(Rule(drop_after=100_001, times=1))
    got = bytearray()
    with client.stream("GET", FILE) as answer, pytest.raises(httpx.RemoteProtocolError):
        collections.deque(map(got.extend, answer.iter_raw()), maxlen=0)
    assert bytes(got) == CONTENT[:100_001]
    rest = client.get(FILE, headers={"Range": f"bytes={len(got)}-"})
    assert got + rest.content == CONTENT
    assert [request.range_start for request in hub.downloads()] == [0, 100_001]


def test_it_hangs_up_without_an_answer(hub: FaultHub, client: httpx.Client) -> None:
    hub.set(Rule(hang_up=True, times=1))
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(FILE)
    assert client.get(FILE).content == CONTENT


def test_a_stalled_answer_goes_on_when_the_rule_is_cleared(hub: FaultHub, client: httpx.Client) -> None:
    hub.set(Rule(stall_after=1000))
    with pytest.raises(httpx.ReadTimeout):
        client.get(FILE, timeout=0.2)
    with client.stream("GET", FILE) as answer:
        chunks = answer.iter_raw()
        assert next(chunks) == CONTENT[:1000]
        assert hub.open_downloads >= 1
        hub.clear()
        assert b"".join(chunks) == CONTENT[1000:]


def test_open_downloads_are_counted_at_their_height(hub: FaultHub) -> None:
    hub.set(Rule(stall_after=10))
    threads = [
        Thread(target=httpx.get, args=(hub.url + FILE,), kwargs={"trust_env": False}) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    hub.wait_for(lambda: hub.open_downloads == 5)
    hub.clear()
    for thread in threads:
        thread.join()
    assert (hub.max_open_downloads, hub.sent()) == (5, 5 * SIZE)


def test_a_client_that_leaves_a_stalled_answer_is_counted_out(hub: FaultHub, client: httpx.Client) -> None:
    hub.set(Rule(stall_after=10))
    with client.stream("GET", FILE):
        hub.wait_for(lambda: hub.open_downloads == 1)
    hub.wait_for(lambda: hub.open_downloads == 0)
    assert not hub.downloads()[0].done


def test_ranges_can_be_ignored(hub: FaultHub, client: httpx.Client) -> None:
    hub.set(Rule(ignore_range=True))
    answer = client.get(FILE, headers={"Range": "bytes=5-"})
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert hub.downloads()[0].range_start == 5


def test_a_content_range_can_lie(hub: FaultHub, client: httpx.Client) -> None:
    hub.set(Rule(content_range="bytes 0-9/10"))
    answer = client.get(FILE, headers={"Range": "bytes=5-"})
    assert (answer.status_code, answer.headers["content-range"]) == (206, "bytes 0-9/10")
    assert answer.content == CONTENT[5:]


@pytest.mark.parametrize("start", [0, 1000])
def test_one_byte_of_the_file_is_another(hub: FaultHub, client: httpx.Client, start: int) -> None:
    hub.set(Rule(flip_at=2000))
    got = client.get(FILE, headers={"Range": f"bytes={start}-"}).content
    differing = [at for at in range(start, SIZE) if got[at - start] != CONTENT[at]]
    assert differing == [2000]


@pytest.mark.parametrize("resize", [-1000, -SIZE, 1, 100_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_shorter_or_longer(hub: FaultHub, client: httpx.Client, resize: int, chunked: bool) -> None:
    hub.set(Rule(resize=resize, chunked=chunked))
    answer = client.get(FILE)
    assert len(answer.content) == SIZE + resize
    assert answer.content[:SIZE] == CONTENT[: SIZE + resize]
    assert answer.headers.get("content-length") == (None if chunked else str(SIZE + resize))


def test_the_rate_of_a_connection_is_held(hub: FaultHub, client: httpx.Client) -> None:
    hub.set(Rule(rate=1_000_000))
    begin = time.monotonic()
    assert client.get(FILE).content == CONTENT
    assert time.monotonic() - begin >= 0.3


def test_an_answer_can_be_delayed(hub: FaultHub, client: httpx.Client) -> None:
    hub.set(Rule(delay=30))
    with pytest.raises(httpx.ReadTimeout):
        client.get(FILE, timeout=0.1)
    assert hub.downloads()[0].status is None


def test_the_file_changes_under_the_answer(hub: FaultHub, client: httpx.Client, tmp_path: Path) -> None:
    commit = client.get("/api/models/org/model").json()["sha"]

    def rewrite() -> None:
        (tmp_path / "org/model/w.bin").write_bytes(seeded("other", SIZE))

    hub.set(Rule(call_after=(1000, rewrite), times=1))
    before = client.get(f"/org/model/resolve/{commit}/w.bin")
    assert before.content == CONTENT  # the hub had read that much already
    after = client.get(f"/org/model/resolve/{commit}/w.bin")
    assert after.headers["x-error-code"] == "RevisionNotFound"


def test_other_bytes_are_served_in_the_place_of_the_file(hub: FaultHub, client: httpx.Client) -> None:
    hub.set(Rule(serve=b"0123456789", headers={"ETag": '"other"'}))
    answer = client.get(FILE, headers={"Range": "bytes=4-"})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (206, b"456789", '"other"')


def test_a_redirect_keeps_what_the_hub_knows_of_the_file(
    hub: FaultHub, client: httpx.Client, tmp_path: Path
) -> None:
    with FaultHub(tmp_path) as other:
        hub.set(Rule(path="/resolve/", redirect=other.url + "{path}"))
        answer = client.get(FILE)
        assert answer.status_code == 302
        assert answer.headers["x-linked-size"] == str(SIZE)
        assert answer.headers["x-linked-etag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
        assert client.get(FILE, follow_redirects=True).content == CONTENT
        assert len(other.downloads()) == 1


def test_a_hub_that_was_down_comes_back_at_the_same_place(hub: FaultHub) -> None:
    hub.set(Rule(stall_after=10))
    with httpx.Client(base_url=hub.url, trust_env=False) as client:
        with client.stream("GET", FILE) as answer:
            chunks = answer.iter_raw()
            assert next(chunks) == CONTENT[:10]
            hub.stop()
            with pytest.raises(httpx.RemoteProtocolError):
                next(chunks)
        with pytest.raises(httpx.ConnectError):
            client.get(FILE)
        hub.clear()
        hub.start()
        assert client.get(FILE).content == CONTENT


def test_a_made_model_digests_as_it_says(tmp_path: Path) -> None:
    made = make_model(tmp_path, "org/two", {"a/b.bin": 3 << 20, "empty": 0, "t.txt": b"text"})
    make_model(tmp_path, "org/two", {"c.bin": 10}, branch="a/b")
    assert digest_tree(tmp_path / "org/two") == made
    assert list(digest_tree(tmp_path / "org/two/@a%2Fb")) == ["c.bin"]
