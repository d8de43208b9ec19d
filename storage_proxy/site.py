"""Everything that one storage proxy is made of, opened from its configuration."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from proxy_client.wire import Waiver
from storage_proxy.auth import ManagerAuthorizer
from storage_proxy.entered import Entered
from storage_proxy.imports.approvals import Approvals
from storage_proxy.imports.fetch import Engine
from storage_proxy.imports.holdings import Holdings
from storage_proxy.imports.jobs import ImportJobs
from storage_proxy.imports.pipeline import ImportPipeline
from storage_proxy.registries.huggingface import HuggingFaceRegistry
from storage_proxy.settings import Settings
from storage_proxy.storages.base import PlannedFile
from storage_proxy.storages.pool import StoragePool
from storage_proxy.transfer.buffers import Buffers
from storage_proxy.transfer.gate import ConnectionGate
from storage_proxy.verifiers.verification import Verification
from storage_proxy.volumes.pool import VolumePool

_BUFFERS = 48  # of 512 KiB each, for all imports of a worker


@dataclass
class Share:
    """How many workers share the proxy's connections; each worker looks every now and then."""

    workers: int = 1


@dataclass(frozen=True)
class Site:
    """One storage proxy's volumes, artifact storages, registries and imports."""

    settings: Settings
    volume_pool: VolumePool
    storage_pool: StoragePool
    registries: dict[str, HuggingFaceRegistry]
    jobs: ImportJobs
    approvals: Approvals
    pipeline: ImportPipeline
    entered: Entered
    share: Share

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        """Open everything; the database is connected at its first use. Raises `BadRequest` for a verifier that cannot be made."""
        volume_pool = VolumePool.from_settings(settings)
        storage_pool = StoragePool.from_settings(settings)
        registries = {
            name: HuggingFaceRegistry(
                name, section, settings.transfer, security=settings.verification.asks_registries
            )
            for name, section in settings.artifact_registries.items()
        }
        authorizer = ManagerAuthorizer(settings)
        share = Share()
        gate = ConnectionGate(
            per_host=settings.worker.connections_per_host,
            total=lambda: settings.worker.connections // share.workers,
        )
        engine = Engine(settings.transfer, gate, Buffers(_BUFFERS, aligned=settings.transfer.direct_io))
        suite = settings.verification.load_suite()
        sandbox = settings.verification.open_sandbox()

        def verifications(
            registry: str, files: Sequence[PlannedFile], waivers: Sequence[Waiver]
        ) -> Verification:
            return Verification(
                suite.verifiers,
                settings.policy(registry),
                files,
                optional=suite.optional,
                waivers=waivers,
                sandbox=sandbox,
            )

        async with sandbox, ImportJobs.open(settings.database_url, settings.proxy.database_schema) as jobs:
            approvals = Approvals(jobs, timedelta(seconds=settings.verification.approval_timeout))
            pipeline = ImportPipeline(
                settings,
                volume_pool,
                storage_pool,
                registries,
                engine,
                Holdings(jobs),
                verifications,
                authorizer,
            )
            entered = Entered(settings, jobs, storage_pool, registries)
            try:
                yield cls(
                    settings, volume_pool, storage_pool, registries, jobs, approvals, pipeline, entered, share
                )
            finally:
                await authorizer.aclose()
                await storage_pool.aclose()
                for registry in registries.values():
                    registry.close()
