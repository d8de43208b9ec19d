"""What the errors about ids say."""

from uuid import UUID

import pytest

from manager.graphql.ids import global_id, parse_id
from proxy_client.errors import BadRequest


@pytest.mark.parametrize(
    ("given", "wanted", "told"),
    [
        ("ImportTask", "VFolder", "is the id of an ImportTask; pass a UUID or the id of a VFolder"),
        ("User", "ArtifactRevision", "is the id of a User; pass a UUID or the id of an ArtifactRevision"),
    ],
)
def test_the_id_of_another_type_is_named_as_such(given: str, wanted: str, told: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        parse_id(global_id(given, UUID(int=1)), wanted, field="id")
    assert told in refusal.value.message
