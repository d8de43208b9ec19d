from collections.abc import Iterator

import pytest

from tests.s3.place import Bucket, bucket_of
from tests.s3.server import S3Server


@pytest.fixture
def bucket(s3_server: S3Server) -> Iterator[Bucket]:
    """An empty bucket with a storage in a folder of it. Parts as small as the protocol allows us, no retries."""
    with bucket_of(s3_server, part_size=8 << 20, parallel_parts=2, retries=0) as place:
        yield place
