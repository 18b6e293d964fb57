"""The embedded ledger: one SQLite file that every service on the machine may open at once.

Covered: every call is signed by its key and checked here, once (nonce), in one transaction that also checks that no
money appears or vanishes; epochs run in order, each in a transaction of its own, before anything later is included;
a process killed at any moment leaves each call included whole or not at all.

Not covered: whoever may write the file may write anything into it. The ledger is for one owner's machine; among
parties who don't trust each other, use a real network.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gas.chain.keys import Signer
from gas.chain.local import blocktime, money, subnets, weights
from gas.chain.local.blocktime import MAX_GAP_BLOCKS, BlockTime, read_block_time
from gas.chain.local.calls import JsonValue, SignedCall, sign_call
from gas.chain.local.epochs import next_due, run_due
from gas.chain.local.schema import connect, unusable
from gas.chain.local.state import Totals, Transaction
from gas.clock import Clock
from gas.errors import ChainError, ChainRefused, ChainUnreachable

__all__ = ["MAX_GAP_BLOCKS", "Ledger"]

_NONCE_ATTEMPTS: Final = 50

_CALLS: Final[dict[str, Callable[[Transaction, SignedCall], int | None]]] = {
    "faucet": money.faucet,
    "transfer": money.transfer,
    "add_stake": money.add_stake,
    "remove_stake": money.remove_stake,
    "create_subnet": subnets.create_subnet,
    "set_hyperparameters": subnets.set_hyperparameters,
    "set_economics": subnets.set_economics,
    "register": subnets.register,
    "serve_axon": subnets.serve_axon,
    "set_commitment": subnets.set_commitment,
    "set_weights": weights.set_weights,
    "commit_weights": weights.commit_weights,
    "reveal_weights": weights.reveal_weights,
    "pause": blocktime.pause,
    "resume": blocktime.resume,
    "advance": blocktime.advance,
}


class Ledger:
    """An open ledger; safe to share between threads, and to open from many processes.

    Args:
        path: The ledger's file; :func:`gas.chain.local.founding.create_ledger` makes one.
        clock: Where block time comes from. Ignored by a manual ledger.

    Raises:
        ConfigurationError: There is no ledger, or one of another version.
        ChainUnreachable: The file can't be read.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        # Re-entrant, so that a call from inside read() is an error and not a dead lock.
        self._lock = threading.RLock()
        self._sql = connect(path)
        row = self._sql.execute("SELECT chain_id, block_ms FROM ledger").fetchone()
        self.chain_id: str = row["chain_id"]
        self.block_seconds: float = row["block_ms"] / 1000

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._sql.close()

    @property
    def manual(self) -> bool:
        """Whether blocks pass by hand only: it was founded so, or it is paused."""
        with self.read() as tx:
            return read_block_time(tx.sql).manual

    def call(
        self, signer: Signer, kind: str, params: Mapping[str, JsonValue], *, cosigner: Signer | None = None
    ) -> int | None:
        """Sign a call with the signer's next nonce and submit it.

        Another process that uses the same key may take the nonce first; then the call is signed again.

        Raises:
            ChainError: A rule forbids the call; nothing has changed.
        """
        for _ in range(_NONCE_ATTEMPTS):
            with self.read() as tx:
                nonce = tx.nonce(signer.ss58_address)
            signed = sign_call(self.chain_id, kind, params, signer=signer, nonce=nonce, cosigner=cosigner)
            try:
                return self.submit(signed)
            except ChainRefused as error:
                if error.error_code != "bad_nonce":
                    raise
        raise ChainUnreachable("Others keep using this key; the call found no turn.")

    def submit(self, call: SignedCall) -> int | None:
        """Check and include one signed call.

        Returns:
            What the call's function says: a uid, a block, a balance, or None.

        Raises:
            ChainError: A rule forbids the call; nothing has changed, and the nonce is still free.
        """
        handler = _CALLS.get(call.kind)
        if handler is None:
            raise ChainRefused("There is no such call.", code="unknown_call")
        call.check(self.chain_id)
        until = 0
        if handler is blocktime.advance:
            # The way there passes through epochs, so whoever may not go must be refused before the first step.
            with self.read() as tx:
                _require_turn(tx, call)
                handler(tx, call)
            until = blocktime.advance_target(call)
        with self._write(until=until) as tx:
            _require_turn(tx, call)
            result = handler(tx, call)
            tx.sql.execute(
                "INSERT INTO accounts (address, nonce) VALUES (?, 1) "
                "ON CONFLICT (address) DO UPDATE SET nonce = nonce + 1",
                (call.signer,),
            )
            tx.sql.execute(
                "INSERT INTO calls (signer, nonce, block, kind, params, signature) VALUES (?, ?, ?, ?, ?, ?)",
                (call.signer, call.nonce, tx.block, call.kind, json.dumps(call.params, sort_keys=True), call.signature),
            )
            return result

    def tick(self) -> int:
        """Bring the ledger up to the clock, running the epochs that are due; returns the block."""
        with self._write() as tx:
            return tx.block

    def advance(self, blocks: int) -> int:
        """Let blocks pass on a manual ledger, running the epochs that fall due; returns the block.

        Raises:
            ChainRefused: The ledger follows the clock (``not_manual``).
            ValueError: ``blocks`` is negative.
        """
        if blocks < 0:
            raise ValueError("Time doesn't go back.")
        self._require_manual()
        with self._write(more=blocks) as tx:
            return tx.block

    def pause(self) -> int:
        """Stop the clock of the blocks; returns the block at which the ledger stands."""
        with self._write() as tx:
            return blocktime.stand_still(tx)

    def resume(self) -> int:
        """Let blocks follow the clock again, from where the ledger stands; returns that block."""
        with self._write() as tx:
            return blocktime.follow_clock(tx) if read_block_time(tx.sql).manual else tx.block

    def advance_to(self, block: int) -> int:
        """Let blocks pass on a manual ledger until ``block``; does nothing when it is there already."""
        self._require_manual()
        with self._write(until=block) as tx:
            return tx.block

    def block(self) -> int:
        """The newest block, with every epoch up to it run."""
        with self.read() as tx:
            target, anchor = read_block_time(tx.sql).target(self._now_ms())
            if target == tx.block and anchor is None:
                return target
        # Storing every block that anyone has seen keeps the number from going back with the clock.
        return self.tick()

    def totals(self) -> Totals:
        """Where all money is."""
        with self.read() as tx:
            return tx.totals()

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A consistent snapshot as of the newest stored block.

        Raises:
            ChainUnreachable: The file can't be read.
        """
        with self._lock, _translated():
            self._refuse_nesting()
            self._sql.execute("BEGIN")
            try:
                yield Transaction(self._sql, int(self._sql.execute("SELECT block FROM ledger").fetchone()[0]))
            finally:
                self._sql.execute("ROLLBACK")

    def _refuse_nesting(self) -> None:
        if self._sql.in_transaction:
            raise ChainError("The ledger can't be asked from inside one of its own transactions.", code="nested")

    def _require_manual(self) -> None:
        with self.read() as tx:
            blocktime.require_manual(tx)

    @contextmanager
    def _write(self, *, until: int = 0, more: int = 0) -> Iterator[Transaction]:
        """A transaction in the present block, after every epoch that is due by then.

        Args:
            until: Block that a manual ledger moves to.
            more: Blocks by which it moves on from where it is when the transaction begins.
        """
        with self._lock, _translated():
            self._refuse_nesting()
            while True:
                self._sql.execute("BEGIN IMMEDIATE")
                try:
                    # The clock is read inside the transaction, so that processes that wait for each other don't look
                    # like a clock that goes back.
                    time, now_ms = read_block_time(self._sql), self._now_ms()
                    # Epochs on the way move the stored block, but not where the way ends.
                    until, more = max(until, time.block + more), 0
                    target, anchor = time.target(now_ms, until)
                    self._note_time(time, now_ms, anchor)
                    due = next_due(Transaction(self._sql, time.block), target)
                    if due is None:
                        tx = Transaction(self._sql, target, now_ms)
                        self._sql.execute("UPDATE ledger SET block = ?", (target,))
                        yield tx
                    else:
                        tx = Transaction(self._sql, due.block, now_ms)
                        self._sql.execute("UPDATE ledger SET block = ?", (due.block,))
                        run_due(tx, due.netuid)
                    tx.check_conservation()
                    self._sql.execute("COMMIT")
                finally:
                    if self._sql.in_transaction:
                        self._sql.execute("ROLLBACK")
                if due is None:
                    return

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)

    def _note_time(self, time: BlockTime, now_ms: int, anchor: tuple[int, int] | None) -> None:
        if time.manual:
            return
        if anchor is not None:
            self._sql.execute("UPDATE ledger SET anchor_ms = ?, anchor_block = ?, seen_ms = ?", (*anchor, now_ms))
        else:
            # The latest, and not the last: a clock that slides back step by step must add up to one that jumped.
            self._sql.execute("UPDATE ledger SET seen_ms = ?", (max(time.seen_ms, now_ms),))


def _require_turn(tx: Transaction, call: SignedCall) -> None:
    expected = tx.nonce(call.signer)
    if call.nonce != expected:
        raise ChainRefused(
            f"The nonce is {call.nonce}, and {expected} is next: a replay, or out of turn.", code="bad_nonce"
        )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise ChainRefused("The call breaks a constraint of the ledger.", code="constraint") from error
    except sqlite3.Error as error:
        raise unusable(error, "The ledger's file can't be used now.") from error
