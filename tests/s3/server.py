"""A real S3 server for tests: OpenStack Swift in an environment of its own (`make swift`), or one that the environment
names: STOWAGE_S3_ENDPOINT, STOWAGE_S3_KEY, STOWAGE_S3_SECRET and, if it matters, STOWAGE_S3_REGION.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from storage_proxy.settings import S3StorageSection
from storage_proxy.storages.s3 import S3Client
from storage_proxy.storages.s3_requests import S3Requests
from storage_proxy.storages.s3_signing import Credentials
from stowage.processes import free_port

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-swift" / "bin" / "python"


@dataclass(frozen=True)
class S3Server:
    """An endpoint and whoever may make buckets there. `ours`: it ends with the session, and its buckets too."""

    endpoint: str
    credentials: Credentials
    region: str = "us-east-1"
    ours: bool = False

    def section(self, bucket: str, **more: object) -> S3StorageSection:
        values = {"type": "s3", "endpoint": self.endpoint, "region": self.region, "bucket": bucket}
        return S3StorageSection.model_validate(values | more)

    def client(self, bucket: str) -> S3Client:
        return S3Client(self.section(bucket), "the test's bucket", lambda: self.credentials)

    @contextmanager
    def bucket(self) -> Iterator[str]:
        """Make an empty bucket, and remove it with everything in it where the server stays."""
        name = f"test-{uuid4().hex[:20]}"
        requests = S3Requests(self.section(name), "the test's bucket", lambda: self.credentials)
        client = self.client(name)
        requests.ask("PUT", "", "making a bucket")
        try:
            yield name
        finally:
            if not self.ours:
                for upload in list(client.list_uploads("")):
                    client.abort(upload.key, upload.upload_id)
                for found in list(client.objects("")):
                    client.delete(found.key)
                requests.ask("DELETE", "", "removing a bucket")
            requests.close()
            client.close()


@contextmanager
def running(directory: Path) -> Iterator[S3Server]:
    """Run Swift, or use what the environment names. Skips the test where there is neither, but not with CI set."""
    if endpoint := os.environ.get("STOWAGE_S3_ENDPOINT"):
        credentials = Credentials(os.environ["STOWAGE_S3_KEY"], os.environ["STOWAGE_S3_SECRET"])
        yield S3Server(endpoint, credentials, os.environ.get("STOWAGE_S3_REGION", "us-east-1"))
        return
    if not PYTHON.exists():
        if os.environ.get("CI"):
            pytest.fail("no S3 server: run make swift")
        pytest.skip("no S3 server: run make swift, or name one in STOWAGE_S3_ENDPOINT")
    credentials = Credentials("test:tester", "testing-secret")
    listen = f"127.0.0.1:{free_port()}"
    with (
        (directory / "output").open("wb") as output,
        subprocess.Popen(
            [
                *(PYTHON, ROOT / "docker" / "swift" / "serve.py", "--data", directory),
                *("--listen", listen, "--bucket", "first"),
            ],
            env={
                "PATH": os.environ["PATH"],
                "AWS_ACCESS_KEY_ID": credentials.access_key,
                "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
            },
            stdout=subprocess.PIPE,
            stderr=output,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert b"answers" in process.stdout.readline(), (directory / "output").read_text()
            yield S3Server(f"http://{listen}", credentials, ours=True)
        finally:
            process.terminate()
