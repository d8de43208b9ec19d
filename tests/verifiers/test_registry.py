import pytest

from storage_proxy.storages.base import PlannedFile
from storage_proxy.verifiers.base import TreeResult
from storage_proxy.verifiers.policy import Policy
from storage_proxy.verifiers.registry import RegistryVerifier

pytestmark = pytest.mark.anyio


async def said(*statuses: str | None) -> TreeResult:
    planned = [
        PlannedFile(path=str(number), size=1, sha256="x", security=status)
        for number, status in enumerate(statuses)
    ]
    return await RegistryVerifier().examine_tree([], planned, Policy())


@pytest.mark.parametrize(
    ("status", "severity"),
    [("unsafe", "block"), ("infected", "block"), ("suspicious", "flag"), ("caution", "flag")],
)
async def test_what_the_registry_warns_of_is_a_finding(status: str, severity: str) -> None:
    result = await said("safe", status)
    assert [(each.file, each.severity) for each in result.findings] == [("1", severity)]
    assert set(result.covered) == {"0", "1"}


@pytest.mark.parametrize("status", [None, "unscanned", "queued", "error", "of no such kind"])
async def test_what_the_registry_does_not_know_is_not_covered(status: str | None) -> None:
    result = await said("safe", status)
    assert (list(result.findings), set(result.covered)) == ([], {"0"})
    assert result.reason
