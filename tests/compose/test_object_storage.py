"""What somebody gets who runs `docker compose --profile s3 up --wait`."""

from pathlib import Path

from tests.compose.conftest import Compose
from tests.compose.test_compose import MODEL, digests, finished, folder, order
from tests.faults.models import digest_tree


def test_a_model_is_imported_into_the_bucket_and_out_of_it(with_bucket: Compose, samples: Path) -> None:
    compose = with_bucket
    assert finished(compose, order(compose, None)) == {
        "status": "SUCCEEDED",
        "path": f"{MODEL}/main",
        "error": None,
    }
    assert compose.inside("s3", "find", "/srv/swift/devices", "-name", "*.data").splitlines()
    assert compose.inside("worker", "ls", "-A", "/srv/stowage/artifact-storage").split() in ([], [".staging"])

    assert finished(compose, order(compose, folder(compose, "from-bucket")))["status"] == "SUCCEEDED"

    assert digests(compose) == digest_tree(samples / MODEL)


def test_every_service_is_healthy_and_the_bucket_is_no_ones_from_outside(with_bucket: Compose) -> None:
    services = with_bucket.services()
    assert services["s3"]["Health"] == services["proxy"]["Health"] == "healthy"
    assert not [port for port in services["s3"].get("Publishers") or [] if port["PublishedPort"]]
