"""OpenStack Swift on one device with its S3 API: `python serve.py --data DIR --listen HOST:PORT --bucket NAME`.

Run by the Python that has Swift installed (requirements.lock beside this file). The keys come from AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY. Everything lies below DIR; a second start finds what the first one stored. It ends with its children.
"""

import argparse
import base64
import ctypes
import hashlib
import hmac
import http.client
import os
import secrets
import signal
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

from swift.common.ring import RingBuilder

DEVICE = "sda"
REGION = "us-east-1"
PATIENCE = 60  # seconds
PORTS = {"account": 6202, "container": 6201, "object": 6200}
PDEATHSIG = 1

# s3api speaks of 10,000 parts as Amazon does; each segment of a large object is one part.
PROXY = """
[DEFAULT]
swift_dir = {etc}
bind_ip = {host}
bind_port = {port}
workers = 0
log_name = proxy
log_level = WARNING
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats s3api tempauth copy slo symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
# A busy machine is no broken one: nobody else could answer.
conn_timeout = 10
node_timeout = 60
error_suppression_limit = 1000000
allow_account_management = true
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{user} = {secret} .admin
[filter:s3api]
use = egg:swift#s3api
location = {region}
max_upload_part_num = 10000
[filter:slo]
use = egg:swift#slo
max_manifest_segments = 10000
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
paste.filter_factory = memory_cache:filter_factory
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:copy]
use = egg:swift#copy
[filter:symlink]
use = egg:swift#symlink
"""

PART = """
[DEFAULT]
swift_dir = {etc}
bind_ip = {address}
bind_port = {port}
devices = {devices}
mount_check = false
workers = 0
log_name = {kind}
log_level = WARNING
fallocate_reserve = 0
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

SWIFT = """
[swift-hash]
swift_hash_path_suffix = stowage
[storage-policy:0]
name = default
default = yes
"""


def own_address() -> str:
    """Choose a loopback address that no other Swift of this machine has, so that no port is taken."""
    first, second, third = (secrets.randbelow(254) + 1 for _ in range(3))
    return f"127.{first}.{second}.{third}"


def configure(data: Path, host: str, port: int) -> dict[str, Path]:
    """Write rings and configurations; returns the file of each server."""
    account, _, user = os.environ["AWS_ACCESS_KEY_ID"].partition(":")
    etc, devices = data / "etc", data / "devices"
    (devices / DEVICE).mkdir(parents=True, exist_ok=True)
    etc.mkdir(exist_ok=True)
    (etc / "swift.conf").write_text(SWIFT)
    files = {"proxy": etc / "proxy.conf"}
    address = own_address()
    for kind, inner in PORTS.items():
        ring = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
        ring.add_dev({"region": 1, "zone": 1, "weight": 1, "ip": address, "port": inner, "device": DEVICE})
        ring.rebalance()
        ring.get_ring().save(str(etc / f"{kind}.ring.gz"))
        files[kind] = etc / f"{kind}.conf"
        files[kind].write_text(PART.format(kind=kind, etc=etc, devices=devices, address=address, port=inner))
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    files["proxy"].touch(mode=0o600)
    files["proxy"].write_text(
        PROXY.format(etc=etc, host=host, port=port, account=account, user=user, secret=secret, region=REGION)
    )
    return files


def die_with_parent() -> None:
    """Let a child end when this process does, however that ends."""
    ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGTERM)


def start(files: dict[str, Path]) -> list[subprocess.Popen[bytes]]:
    """Start every server."""
    scripts = Path(sys.executable).parent
    return [
        subprocess.Popen(  # noqa: S603 -- our own servers
            [sys.executable, scripts / f"swift-{kind}-server", file],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
            preexec_fn=die_with_parent,  # noqa: PLW1509 -- no thread runs here
        )
        for kind, file in files.items()
    ]


def make_bucket(servers: list[subprocess.Popen[bytes]], host: str, port: int, bucket: str) -> None:
    """Make the bucket as soon as the server answers; one that is there stays."""
    until = time.monotonic() + PATIENCE
    while True:
        date = formatdate(usegmt=True)
        text = f"PUT\n\n\n{date}\n/{bucket}"
        key = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
        signature = base64.b64encode(hmac.digest(key, text.encode(), hashlib.sha1)).decode()
        connection = http.client.HTTPConnection(host, port, timeout=10)
        try:
            authorization = f"AWS {os.environ['AWS_ACCESS_KEY_ID']}:{signature}"
            connection.request("PUT", f"/{bucket}", headers={"Date": date, "Authorization": authorization})
            status = connection.getresponse().status
        except OSError:
            status = 0
        finally:
            connection.close()
        if status in {200, 409}:
            return
        if any(server.poll() is not None for server in servers):
            sys.exit("a server of Swift did not start")
        if time.monotonic() > until:
            sys.exit(f"Swift does not make the bucket: it answers {status}")
        time.sleep(0.05)


def main() -> None:
    """Serve until a signal."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--listen", required=True)
    arguments.add_argument("--bucket", required=True)
    given = arguments.parse_args()
    host, _, port = given.listen.rpartition(":")
    servers = start(configure(given.data.absolute(), host, int(port)))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        make_bucket(servers, "127.0.0.1", int(port), given.bucket)
        print(f"the S3 API answers at http://{host}:{port}/{given.bucket}", flush=True)  # noqa: T201 -- its only word
        os.waitpid(-1, 0)
        sys.exit("a server of Swift ended")
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()


if __name__ == "__main__":
    main()
