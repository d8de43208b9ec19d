"""The health check of the containers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.healthy import main
from tests.faults.hub import FaultHub, Rule


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FaultHub]:
    with FaultHub(tmp_path) as hub:
        yield hub


def test_what_answers_200_is_healthy(hub: FaultHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert main(f"{hub.url}/healthz") == 0


def test_what_answers_503_is_not_and_says_why(hub: FaultHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.set(Rule(path="/readyz", status=503, body=b'{"reasons": ["no worker"]}'))
    assert main(f"{hub.url}/readyz") == 1
    assert capsys.readouterr().err.endswith('/readyz answers 503: {"reasons": ["no worker"]}\n')


def test_what_gives_no_answer_is_not(hub: FaultHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.stop()
    assert main(f"{hub.url}/readyz") == 1
    assert "does not answer" in capsys.readouterr().err
