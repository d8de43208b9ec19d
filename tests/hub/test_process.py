import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.faults.models import make_model

COMMAND = [sys.executable, "-m", "stowage.hub"]


def test_the_hub_as_a_process_serves_and_stops(tmp_path: Path) -> None:
    make_model(tmp_path, "org/model", {"w.bin": 24 << 20})
    with subprocess.Popen(
        [*COMMAND, str(tmp_path), "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    ) as hub:
        try:
            assert hub.stdout is not None
            url = hub.stdout.readline().split()[-1]
            with httpx.Client(base_url=url, trust_env=False) as client:
                assert client.get("/healthz").text == "ok"
                with client.stream("GET", "/org/model/resolve/main/w.bin") as answer:
                    next(answer.iter_raw())
                    hub.send_signal(signal.SIGTERM)
                    assert hub.wait(timeout=10) == 0
        finally:
            hub.kill()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none"], "none: is no directory; name the one that holds org/name/"),
        ([".", "--listen", "nowhere"], "--listen: 'nowhere' is not HOST:PORT"),
        ([".", "--listen", "127.0.0.1:99999"], "cannot listen on 127.0.0.1:99999"),
        ([".", "--listen", "192.0.2.1:80"], "cannot listen on 192.0.2.1:80 (Cannot assign"),
        ([".", "--token-file", "none"], "none: cannot be read; name a file of tokens"),
        ([".", "--token-file", "empty"], "empty: holds no token; write one a line"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "empty").touch()
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
