"""Where everybody downloads from: one nginx with a hub's answers as files, plain, with TLS, and behind a slow front."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from benchmarks.content import Model
from stowage.processes import dies_with_parent, free_port, tail

LATENCY = 0.05  # seconds of a round trip through the slow front
RATE = 40_000_000  # bytes per second of one connection through it
_UP_WITHIN = 10.0  # seconds

_NGINX = """
daemon off;
{user}
worker_processes auto;
worker_rlimit_nofile 65536;
pid {work}/nginx.pid;
error_log {work}/nginx.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    sendfile on;
    sendfile_max_chunk 2m;
    tcp_nopush on;
    keepalive_requests 1000000;
    etag off;
    default_type application/octet-stream;
    open_file_cache max=8192 inactive=10m;
    open_file_cache_valid 10m;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    map_hash_max_size 65536;
    map_hash_bucket_size 512;
    map $uri $hub_etag {{ include {work}/etag.map; }}
    map $uri $hub_linked_size {{ include {work}/size.map; }}
    map $uri $hub_linked_etag {{ include {work}/linked.map; }}
    ssl_certificate {work}/hub.pem;
    ssl_certificate_key {work}/hub.key;
    ssl_protocols TLSv1.3;
    server {{
        listen 127.0.0.1:{plain} backlog=4096;
        listen 127.0.0.1:{tls} ssl backlog=4096;
        location /api/models/ {{
            root {work}/hub;
            default_type application/json;
            try_files $uri.json =404;
        }}
        location ~ "^/bench/(?<model>[^/]+)/resolve/(?<commit>[0-9a-f]{{40}})/(?<path>.+)$" {{
            alias {content}/$model/$path;
            add_header X-Repo-Commit $commit;
            add_header ETag $hub_etag;
            add_header X-Linked-Size $hub_linked_size;
            add_header X-Linked-Etag $hub_linked_etag;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Source:
    """One way to the hub: its endpoint, and the certificate of who signed its own where it speaks TLS."""

    name: str
    endpoint: str
    ca_file: Path | None = None

    def url(self, model: Model, path: str) -> str:
        """Return where a file's bytes are."""
        return f"{self.endpoint}/{model.id}/resolve/{model.commit}/{quote(path)}"


@contextmanager
def serve(work: Path, content: Path, models: Sequence[Model]) -> Iterator[dict[str, Source]]:
    """Serve the models below `content` until the end of the block; yields the sources plain, tls and slow.

    work: a directory of its own, made anew.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for model in models:
        _render(work / "hub", model)
    _write_maps(work, models)
    _make_certificates(work)
    plain, tls, slow = (free_port() for _ in range(3))
    (work / "nginx.conf").write_text(
        _NGINX.format(
            user="user root;" if os.geteuid() == 0 else "", work=work, content=content, plain=plain, tls=tls
        )
    )
    log = work / "nginx.log"
    front = [sys.executable, "-m", "benchmarks.front", "--listen", str(slow), "--hub", str(plain)]
    with (
        running(["nginx", "-p", str(work), "-c", str(work / "nginx.conf"), "-e", str(log)], log),
        running([*front, "--latency", str(LATENCY), "--rate", str(RATE)], work / "front.log"),
    ):
        for port in (plain, tls, slow):
            wait_for(port, log)
        yield {
            "plain": Source("plain", f"http://127.0.0.1:{plain}"),
            "tls": Source("tls", f"https://127.0.0.1:{tls}", work / "ca.pem"),
            "slow": Source("slow", f"http://127.0.0.1:{slow}"),
        }


def _render(hub: Path, model: Model) -> None:
    """Write a hub's answers about a model: its revision and its tree."""
    info = {"_id": model.id, "id": model.id, "modelId": model.id, "sha": model.commit, "private": False}
    info |= {
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": [{"rfilename": file.path} for file in model.files],
    }
    tree = [
        {"type": "file", "path": file.path, "size": file.size, "oid": file.blob_id}
        | ({"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 135}} if file.lfs else {})
        for file in model.files
    ]
    api = hub / "api" / "models" / model.id
    for name, answer in (
        ("revision/main", info),
        (f"revision/{model.commit}", info),
        (f"tree/{model.commit}", tree),
    ):
        path = api / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(answer))


def _write_maps(work: Path, models: Sequence[Model]) -> None:
    with (
        (work / "etag.map").open("w") as etags,
        (work / "size.map").open("w") as sizes,
        (work / "linked.map").open("w") as linked,
    ):
        for model in models:
            for file in model.files:
                uri = f'"/{model.id}/resolve/{model.commit}/{file.path}"'
                etags.write(f"{uri} '\"{file.sha256 if file.lfs else file.blob_id}\"';\n")
                if file.lfs:
                    sizes.write(f"{uri} {file.size};\n")
                    linked.write(f"{uri} '\"{file.sha256}\"';\n")


def _make_certificates(work: Path) -> None:
    """Make a certificate authority for this run alone, and a certificate for 127.0.0.1."""
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    # Strict verifiers want a key usage from an authority, and an authority key identifier from its certificates.
    authority = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    _openssl(
        [*new, *authority, "-days", "2", "-subj", "/CN=stowage bench", "-keyout", "ca.key", "-out", "ca.pem"],
        work,
    )
    server = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    server += ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"]
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2", "-subj", "/CN=127.0.0.1"]
    _openssl([*new, *server, *signed, "-keyout", "hub.key", "-out", "hub.pem"], work)


def _openssl(command: Sequence[str], work: Path) -> None:
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"openssl cannot make a certificate: {done.stderr.strip()}")


@contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a process until the end of the block; what it says is appended to the log."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            preexec_fn=dies_with_parent(signal.SIGTERM),  # noqa: PLW1509 -- no thread runs yet
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port: int, log: Path, within: float = _UP_WITHIN) -> None:
    """Return once somebody listens on this port of 127.0.0.1; the program ends with the log's end otherwise."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    sys.exit(f"a process does not come up:\n{tail(log)}")
