"""What a validator's three services can be watched by: health and Prometheus metrics, read from the database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from sqlalchemy import func, select

from gas import __version__
from gas.clock import Clock
from gas.protocol.server import install_error_handler
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow, MediumRow, PromptRow
from gas.validator.ground import SERVICES, ServiceState

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

    from gas.validator.receiving import ReceivingCounts

__all__ = ["STALE_SECONDS", "ValidatorFacts", "create_metrics_app", "read_facts"]

STALE_SECONDS: Final = 120.0
"""A service that has not said for so long that it lives counts as down."""


@dataclass(frozen=True, slots=True)
class ValidatorFacts:
    """How a validator does.

    Attributes:
        challenges: Challenges of the last day by state.
        backlog: Deliveries that wait for their verification.
        oldest_seconds: Age of the oldest of them.
        media: Kept, published and pruned media by (source, state).
        unused_prompts: Prompts that were never handed out, by modality.
        heartbeats: Seconds since each service last said that it lives, and what it said then.
    """

    challenges: dict[str, int]
    backlog: int
    oldest_seconds: float
    media: dict[tuple[str, str], int]
    unused_prompts: dict[str, int]
    heartbeats: dict[str, tuple[float, dict[str, Any]]]


def read_facts(database: Database, validator: str, now: float) -> ValidatorFacts:
    """Look into the database.

    Args:
        database: Of the three services.
        validator: Hotkey.
        now: Seconds since the epoch.
    """
    mine = ChallengeRow.validator == validator
    count = func.count()
    with database.read() as session:
        recent = session.execute(
            select(ChallengeRow.state, count)
            .where(mine, ChallengeRow.created_at >= now - 86_400)
            .group_by(ChallengeRow.state)
        )
        challenges = dict(recent.tuples().all())
        waiting = session.execute(
            select(count, func.min(ChallengeRow.delivered_at)).where(mine, ChallengeRow.state == "delivered")
        ).one()
        media = session.execute(
            select(MediumRow.source, MediumRow.state, count).group_by(MediumRow.source, MediumRow.state)
        )
        stock = {(source, state): number for source, state, number in media.tuples()}
        unused = session.execute(
            select(PromptRow.modality, count).where(PromptRow.times_used == 0).group_by(PromptRow.modality)
        )
        prompts = dict(unused.tuples().all())
    beats = {name: (max(0.0, now - at), facts) for name, (at, facts) in ServiceState.heartbeats(database).items()}
    oldest = max(0.0, now - waiting[1]) if waiting[1] is not None else 0.0
    return ValidatorFacts(challenges, waiting[0], oldest, stock, prompts, beats)


def create_metrics_app(
    database: Database, validator: str, clock: Clock, counts: ReceivingCounts | None = None
) -> FastAPI:
    """``GET /metrics`` (Prometheus) and ``GET /health`` (200, or 503 when a service is down) for one's own network.

    Args:
        database: Of the three services.
        validator: Hotkey.
        clock: The time.
        counts: Of the webhook in this process.
    """
    from prometheus_client import CollectorRegistry, generate_latest

    app = FastAPI(title="GAS validator metrics", version=__version__, docs_url=None, redoc_url=None)
    install_error_handler(app)

    def exposition() -> bytes:
        registry = CollectorRegistry()
        registry.register(_Collected(read_facts(database, validator, clock.time()), counts))
        return generate_latest(registry)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(await asyncio.to_thread(exposition), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/health")
    async def health() -> JSONResponse:
        beats = await asyncio.to_thread(ServiceState.heartbeats, database)
        now = clock.time()
        ages = {name: round(max(0.0, now - beats[name][0]), 1) if name in beats else None for name in SERVICES}
        fine = all(age is not None and age < STALE_SECONDS for age in ages.values())
        return JSONResponse(
            {"status": "ok" if fine else "degraded", "seconds_since_heartbeat": ages}, status_code=200 if fine else 503
        )

    return app


class _Collected:
    def __init__(self, facts: ValidatorFacts, counts: ReceivingCounts | None) -> None:
        self._facts = facts
        self._counts = counts

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families of one look."""
        from prometheus_client.core import GaugeMetricFamily

        def family(name: str, about: str, labels: tuple[str, ...], values: dict[Any, float]) -> GaugeMetricFamily:
            made = GaugeMetricFamily(f"gas_validator_{name}", about, labels=labels)
            for key, value in values.items():
                made.add_metric([key] if isinstance(key, str) else list(key), value)
            return made

        facts = self._facts
        yield family("challenges_day", "Challenges of the last day by state.", ("state",), dict(facts.challenges))
        yield family("backlog", "Deliveries that wait for verification.", (), {(): facts.backlog})
        yield family("backlog_seconds", "Age of the oldest of them.", (), {(): facts.oldest_seconds})
        yield family("media", "Media by source and state.", ("source", "state"), dict(facts.media))
        yield family("prompts_unused", "Prompts never handed out.", ("modality",), dict(facts.unused_prompts))
        ages = {name: age for name, (age, _) in facts.heartbeats.items()}
        yield family("heartbeat_seconds", "Since each service said that it lives.", ("service",), dict(ages))
        if self._counts is not None:
            yield family("deliveries", "Media taken since the start.", (), {(): self._counts.deliveries})
            yield family("delivered_bytes", "Their bytes.", (), {(): self._counts.bytes})
            refused = dict(self._counts.refused)
            yield family("deliveries_refused", "Refusals since the start.", ("code",), dict(refused))
