"""The table of services: who makes each modality, opened from the operator's settings."""

from __future__ import annotations

from pathlib import Path

from gas.clock import Clock
from gas.errors import ConfigurationError
from gas.generation.base import Pipeline, Service
from gas.miners.local import LocalService
from gas.miners.settings import GeneratorSettings
from gas.types import Modality

__all__ = ["open_services"]


def open_services(settings: GeneratorSettings, env_file: Path | None, clock: Clock) -> dict[Modality, Service]:
    """Open what the settings name; a provider that makes several modalities is opened once.

    Args:
        settings: The generator's.
        env_file: Where the providers' keys are, beside the environment.
        clock: For the providers' time limits.

    Raises:
        ConfigurationError: ``modality_not_offered`` when a service does not make what it is named for, and whatever
            the service itself finds: a missing key, an unknown model, missing weights.
    """
    table: dict[Modality, Service] = {}
    providers: dict[str, Service] = {}
    for modality, name in settings.services().items():
        if name == "local":
            table[modality] = _open_local(settings, modality)
        else:
            if name not in providers:
                providers[name] = _open_provider(name, env_file, clock)
            table[modality] = providers[name]
        if modality not in table[modality].modalities:
            offered = ", ".join(sorted(table[modality].modalities)) or "nothing"
            raise ConfigurationError(
                f"{modality.upper()}_SERVICE={name}: it makes no {modality}.",
                code="modality_not_offered",
                hint=f"It makes {offered}.",
            )
    return table


def _open_provider(name: str, env_file: Path | None, clock: Clock) -> Service:
    from gas.generation.services import ServiceSettings, open_service

    settings = ServiceSettings(_env_file=env_file)
    return open_service(name, settings, clock=clock)


def _open_local(settings: GeneratorSettings, modality: Modality) -> LocalService:
    from gas.generation.local import load_pipeline

    def load(name: str) -> Pipeline:
        return load_pipeline(
            name,
            library=settings.miner_library,
            threads=settings.miner_threads,
            device=settings.miner_device,
            downloads=settings.miner_downloads,
        )

    pipeline = load(settings.pipeline(modality))
    edit = settings.image_edit_pipeline if modality is Modality.IMAGE else ""
    return LocalService(pipeline, load(edit) if edit else None)
