"""The threads of a run that drive its model processes.

Each keeps as many batches with its model as the session takes, so that the model never waits for a hand-over. A model
that dies is blamed for the oldest batch that it had not answered: that one is asked again sample by sample, the others
as they were.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gas.bench.answers import Outcome
from gas.bench.batches import Ask
from gas.bench.feed import Ahead
from gas.errors import ModelFailed
from gas.sandbox.base import ModelSession

__all__ = ["Batch", "Decoded", "GivenUp", "Keeper", "Worker"]

Batch = tuple[Ask, ...]
Decoded = tuple[NDArray[np.generic], NDArray[np.bool_]]
"""Inputs of a batch, and which of them are usable."""


class GivenUp(Exception):
    """The restarts of the run are used up, or it is broken off."""


class Keeper(Protocol):
    """The run that a worker works for; called from several threads."""

    @property
    def stopped(self) -> bool:
        """Whether the run is broken off."""
        ...

    @property
    def width(self) -> int:
        """Number of logits that the model has declared."""
        ...

    def start_session(self, *, again: bool) -> ModelSession:
        """A fresh model process; ``again`` when one of the same worker has died."""
        ...

    def end_session(self, session: ModelSession) -> None:
        """Kill a model process."""
        ...

    def keep(self, answers: Sequence[tuple[Ask, Outcome]]) -> None:
        """Take a complete batch."""
        ...

    def give_up(self, answers: Sequence[tuple[Ask, Outcome]]) -> None:
        """Take what a worker leaves that has no restarts left."""
        ...

    def timed(self, showings: int, seconds: float) -> None:
        """Take how long the model had a batch."""
        ...

    def now(self) -> float:
        """The run's monotonic clock."""
        ...


@runtime_checkable
class _Queueing(Protocol):
    """A session that takes a batch while it computes another."""

    @property
    def capacity(self) -> int: ...

    def submit(self, batch: NDArray[np.generic]) -> None: ...

    def collect(self) -> NDArray[np.float32]: ...


@dataclass(slots=True)
class _Given:
    """A batch on its way through the model."""

    batch: Batch
    asks: Sequence[Ask]
    pixels: NDArray[np.generic]
    since: float = 0.0


class Worker:
    """One thread that drives one model process after another.

    Args:
        run: Whom it works for.
        ahead: Where batches come from.
        spare: How many batches are left to other workers before this one takes a second.
    """

    def __init__(self, run: Keeper, ahead: Ahead[Batch, Decoded], *, spare: int) -> None:
        self._run, self._ahead, self._spare = run, ahead, spare
        self._session: ModelSession | None = None
        self._started = False
        self._given: deque[_Given] = deque()
        self._again: deque[_Given] = deque()
        self._leaving: list[tuple[Ask, Outcome]] = []

    def run(self) -> None:
        """Answer batches until there are none, or no restarts, left.

        Raises:
            gas.errors.ModelFailed: The model can't be loaded at all.
            gas.errors.SandboxUnavailable: Ours.
        """
        try:
            self._ready()
            while not self._run.stopped:
                while (item := self._next()) is not None:
                    self._give(item)
                if not self._given:
                    if self._again:
                        continue
                    return
                self._collect()
        except GivenUp:
            if not self._run.stopped:
                # Said together: whoever goes on with this run after a kill must not ask them in this worker's stead.
                for item in (*self._given, *self._again):
                    self._leaving += _completed(item, _unasked(item.asks))
                self._run.give_up(self._leaving)
        finally:
            if self._session is not None:
                self._run.end_session(self._session)

    def _next(self) -> _Given | None:
        """A batch to hand over now; None when there is none, or the model has enough."""
        session = self._session
        room = session.capacity if isinstance(session, _Queueing) else 1
        if len(self._given) >= room or self._run.stopped:
            return None
        if self._again:
            return self._again.popleft()
        # With a batch on its way, nothing is waited for: its answer matters more.
        taken = self._ahead.take_ready(self._spare) if self._given else self._ahead.take()
        if taken is None:
            return None
        batch, (pixels, usable) = taken
        if usable.all():
            return _Given(batch, batch, pixels)
        return _Given(batch, [ask for ask, fine in zip(batch, usable, strict=True) if fine], pixels[usable])

    def _give(self, item: _Given) -> None:
        if not item.asks:
            self._finish(item, [])
            return
        self._given.append(item)
        session = self._ready()
        item.since = self._run.now()
        if isinstance(session, _Queueing):
            try:
                session.submit(item.pixels)
            except ModelFailed as error:
                self._blame(session, error)

    def _collect(self) -> None:
        session, item = self._ready(), self._given[0]
        try:
            logits = session.collect() if isinstance(session, _Queueing) else session.infer(item.pixels)
            self._check(logits, len(item.asks))
        except ModelFailed as error:
            self._blame(session, error)
            return
        self._given.popleft()
        now = self._run.now()
        self._run.timed(len(item.asks), now - item.since)
        for waiting in self._given:
            waiting.since = now
        self._finish(item, _outcomes(item.asks, logits))

    def _blame(self, session: ModelSession, error: ModelFailed) -> None:
        """Ask the oldest batch one by one, so that only the guilty samples count; the others as they were."""
        self._bury(session, error)
        guilty = self._given.popleft()
        self._again.extendleft(reversed(self._given))
        self._given.clear()
        if len(guilty.asks) == 1:
            self._finish(guilty, [(guilty.asks[0], Outcome(error=error.error_code))])
            return
        answers: list[tuple[Ask, Outcome]] = []
        try:
            for k, ask in enumerate(guilty.asks):
                answers.append(self._single(ask, guilty.pixels[k : k + 1]))
        except GivenUp:
            self._leaving = _completed(guilty, answers + _unasked(guilty.asks[len(answers) :]))
            raise
        self._finish(guilty, answers)

    def _single(self, ask: Ask, pixels: NDArray[np.generic]) -> tuple[Ask, Outcome]:
        session = self._ready()
        began = self._run.now()
        try:
            logits = session.infer(pixels)
            self._check(logits, 1)
        except ModelFailed as error:
            self._bury(session, error)
            return ask, Outcome(error=error.error_code)
        self._run.timed(1, self._run.now() - began)
        return _outcomes((ask,), logits)[0]

    def _check(self, logits: NDArray[np.float32], samples: int) -> None:
        if logits.shape != (samples, self._run.width):
            raise ModelFailed("The model answered with another shape than declared.", code="bad_output")

    def _bury(self, session: ModelSession, error: ModelFailed) -> None:
        self._session = None
        self._run.end_session(session)
        if self._run.stopped:
            raise GivenUp from error

    def _finish(self, item: _Given, answers: list[tuple[Ask, Outcome]]) -> None:
        self._run.keep(_completed(item, answers))

    def _ready(self) -> ModelSession:
        if self._session is None:
            self._session = self._run.start_session(again=self._started)
            self._started = True
        return self._session


def _completed(item: _Given, answers: list[tuple[Ask, Outcome]]) -> list[tuple[Ask, Outcome]]:
    """The answers of a batch, with those of its media that were no input."""
    if len(answers) == len(item.batch):
        return answers
    known = {ask for ask, _ in answers}
    unusable = Outcome(error="undecodable", media_error=True)
    return answers + [(ask, unusable) for ask in item.batch if ask not in known]


def _unasked(asks: Sequence[Ask]) -> list[tuple[Ask, Outcome]]:
    return [(ask, Outcome(error="gave_up")) for ask in asks]


def _outcomes(asks: Sequence[Ask], logits: NDArray[np.float32]) -> list[tuple[Ask, Outcome]]:
    usable = np.logical_and.reduce(np.isfinite(logits), axis=1).tolist()
    bad = Outcome(error="not_finite")
    return [(ask, Outcome(logits=row) if fine else bad) for ask, row, fine in zip(asks, logits, usable, strict=True)]
