"""What the steps of an import share, and how a target on the wire becomes a storage."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy_client.wire import (
    ArtifactStorageImportStep,
    ImportOrder,
    ModelRef,
    StorageTargetVFolder,
    Target,
)
from storage_proxy.storages.base import AbstractStorage
from storage_proxy.storages.pool import StoragePool
from storage_proxy.storages.volume_adapter import VolumeStorageAdapter
from storage_proxy.volumes.pool import VolumePool


@dataclass(frozen=True, slots=True)
class StorageTarget:
    """Where a step reads and writes: an artifact storage's name, or a storage that is already there."""

    target: str | AbstractStorage

    def resolve(self, storage_pool: StoragePool) -> AbstractStorage:
        """Look a name up in the pool; return an instance as it is. Raises `NotFound` for an unknown name."""
        return storage_pool.get_storage(self.target) if isinstance(self.target, str) else self.target


@dataclass
class ImportStepContext:
    """What the steps share. `step_metadata` is what one step leaves for the next ones."""

    model: ModelRef
    registry_name: str
    storage_pool: StoragePool
    storage_step_mappings: Mapping[ArtifactStorageImportStep, StorageTarget]
    order: ImportOrder
    step_metadata: dict[str, Any] = field(default_factory=dict)

    def storage(self, step: ArtifactStorageImportStep) -> AbstractStorage:
        """Return the storage of a step; steps with the same target share one instance."""
        return self.storage_step_mappings[step].resolve(self.storage_pool)


def open_targets(
    order: ImportOrder, volume_pool: VolumePool
) -> dict[ArtifactStorageImportStep, StorageTarget]:
    """Turn the order's targets into `StorageTarget`s. Raises `NotFound` for an unknown volume.

    A vfolder becomes one `VolumeStorageAdapter` named `vfolder_storage_{request_id}`, shared by the steps that
    name the same vfolder, so that they also share its staging area.
    """
    adapters: dict[StorageTargetVFolder, StorageTarget] = {}

    def opened(target: Target) -> StorageTarget:
        if not isinstance(target, StorageTargetVFolder):
            return StorageTarget(target.storage_name)
        if target not in adapters:
            volume = volume_pool.get_volume(target.volume_name)
            name = f"vfolder_storage_{order.request_id}"
            adapters[target] = StorageTarget(VolumeStorageAdapter(name, volume, target.vfolder_id))
        return adapters[target]

    return {step: opened(getattr(order.storage_step_mappings, step)) for step in ArtifactStorageImportStep}
