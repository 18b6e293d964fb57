"""The OpenAPI document against the running application: nothing that the document allows is a fault of ours.

Every request is signed on its way in, so that what lies behind the signature is asked too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import schemathesis
from arena_fakes import SIGNER, Arena
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gas.arena.packages import PackageDesk
from gas.chain.base import Metagraph, Neuron
from gas.chain.keys import signer_from_seed
from gas.clock import ManualClock, RandomIds
from gas.protocol.epistula import ReplayGuard, sign_request
from gas.protocol.server import EpistulaGate, MetagraphCache
from gas.submissions.limits import Limits
from gas.types import Rao
from gas.web.api import ApiDependencies, create_app

AUTHOR = signer_from_seed(b"\x01" * 32)
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 10


class OneAuthor:
    """A chain with one hotkey on it."""

    async def metagraph(self, netuid: int) -> Metagraph:
        key = AUTHOR.ss58_address
        return Metagraph(netuid, 1, 0, (Neuron(0, key, key, Rao(0), False, None, 0, 0, 0, 0, 0, 0, Rao(0), True),))


@dataclass
class Signing:
    """Signs requests to the author's paths as the author would; others pass as they are."""

    app: ASGIApp
    clock: ManualClock
    ids: RandomIds
    submission_id: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(("/api/v1/submissions", "/api/v1/uploads")):
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.clock.advance(1.0)
        signed = sign_request(
            AUTHOR, body, signed_for=SIGNER.ss58_address, now_ms=int(self.clock.time() * 1000), uuid=self.ids.new()
        )
        headers = [(k, v) for k, v in scope["headers"] if not k.startswith(b"epistula-")]
        headers += [(name.lower().encode(), value.encode()) for name, value in signed.items()]
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else {"type": "http.disconnect"}

        await self.app({**scope, "headers": headers}, replay, send)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signing]:
    home: Path = tmp_path_factory.mktemp("documented")
    clock = ManualClock()
    arena = Arena(home, clock)
    arena.open_round()
    known = arena.push(AUTHOR.ss58_address, "weights").model_id
    metagraph = MetagraphCache(OneAuthor(), 1, clock)  # type: ignore[arg-type]
    gate = EpistulaGate(SIGNER.ss58_address, metagraph, clock, ReplayGuard())
    desk = replace(arena.submissions, check=PackageDesk(Limits()).check)
    deps = ApiDependencies(arena.database, desk, gate, metagraph, clock, RandomIds(), home / "incoming")
    yield Signing(create_app(deps), clock, RandomIds(), known)
    arena.close()


def test_no_request_that_the_document_allows_makes_the_service_stumble(app: Signing) -> None:
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)
    asked = set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(), known=st.booleans())
        def ask(case: schemathesis.Case, known: bool) -> None:
            asked.add((case.method, case.path))
            if known and "submission_id" in case.path_parameters:
                case.path_parameters["submission_id"] = app.submission_id
            case.call_and_validate(checks=CHECKS)

        ask()
    assert len(asked) >= 19


def test_a_name_that_no_database_takes_is_refused_as_every_other_wrong_value(app: Signing) -> None:
    with TestClient(app) as client:
        answer = client.get("/api/v1/runs/a%00b")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_value")
