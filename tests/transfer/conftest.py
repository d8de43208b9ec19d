import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificates:
    """An authority of the tests' own, and a server's certificate for 127.0.0.1 that it signed."""

    ca_file: Path
    server: ssl.SSLContext


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    work = tmp_path_factory.mktemp("tls")
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    ours = ["-subj", "/CN=tests", "-keyout", "ca.key", "-out", "ca.pem"]
    theirs = [
        *("-subj", "/CN=hub", "-addext", "subjectAltName=IP:127.0.0.1", "-CA", "ca.pem", "-CAkey", "ca.key"),
        *("-keyout", "hub.key", "-out", "hub.pem"),
    ]
    for options in (ours, theirs):
        subprocess.run([*new, *options], cwd=work, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(work / "hub.pem", work / "hub.key")
    return Certificates(work / "ca.pem", server)


@pytest.fixture(autouse=True)
def _nothing_at_work() -> Iterator[None]:
    """Whatever a test does, no thread that moves bytes outlives it."""
    yield
    deadline = time.monotonic() + 5
    while left := [thread.name for thread in threading.enumerate() if thread.name in {"fetch", "hash"}]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
