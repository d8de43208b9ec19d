"""What the verifiers said, as clients of the contract read it."""

from datetime import datetime
from typing import Any

import orjson
import strawberry

from proxy_client import wire


@strawberry.type(description="One fact that a verifier reports.")
class ArtifactVerifierMetadataEntry:
    """One fact that a verifier reports."""

    key: str = strawberry.field(description="The fact's name: status, version, skipped, or finding.N.")
    value: str = strawberry.field(description="Its value; a finding is a JSON object.")


@strawberry.type(description="What a verifier reports beyond its counts.")
class ArtifactVerifierMetadata:
    """What a verifier reports beyond its counts."""

    entries: list[ArtifactVerifierMetadataEntry] = strawberry.field(
        description="The facts; findings last, in the order in which they were made."
    )


@strawberry.type(description="What one verifier did.")
class ArtifactVerifierResult:
    """What one verifier did."""

    success: bool = strawberry.field(description="Whether it checked everything it had to and found nothing.")
    infected_count: int = strawberry.field(description="The number of files with findings.")
    scanned_at: datetime = strawberry.field(description="When it began.")
    scan_time: float = strawberry.field(description="How long it took, in seconds.")
    scanned_count: int = strawberry.field(description="The number of files it checked.")
    metadata: ArtifactVerifierMetadata = strawberry.field(description="What else it reports.")
    error: str | None = strawberry.field(description="Why it could not do its work.")


@strawberry.type(description="A verifier and what it did.")
class ArtifactVerifierResultEntry:
    """A verifier and what it did."""

    name: str = strawberry.field(description="The verifier's name.")
    result: ArtifactVerifierResult = strawberry.field(description="What it did.")


@strawberry.type(description="What the verifiers of one import said.")
class ArtifactVerificationResult:
    """What the verifiers of one import said."""

    verifiers: list[ArtifactVerifierResultEntry] = strawberry.field(
        description="One entry for each verifier."
    )


def verification_result(stored: dict[str, Any] | None) -> ArtifactVerificationResult | None:
    """Present a stored `VerificationReport`."""
    if stored is None:
        return None
    report = wire.VerificationReport.model_validate(stored)
    return ArtifactVerificationResult(
        verifiers=[
            ArtifactVerifierResultEntry(name=verifier.name, result=_result(verifier))
            for verifier in report.verifiers
        ]
    )


def _result(verifier: wire.VerifierReport) -> ArtifactVerifierResult:
    facts = {"status": verifier.status, "version": verifier.version, "skipped": str(verifier.skipped)}
    facts |= {
        f"finding.{number}": orjson.dumps(finding.model_dump(mode="json")).decode()
        for number, finding in enumerate(verifier.findings)
    }
    return ArtifactVerifierResult(
        success=verifier.status == "clean",
        infected_count=verifier.infected,
        scanned_at=verifier.started_at,
        scan_time=verifier.duration,
        scanned_count=verifier.scanned,
        metadata=ArtifactVerifierMetadata(
            entries=[ArtifactVerifierMetadataEntry(key=key, value=value) for key, value in facts.items()]
        ),
        error=verifier.error,
    )
