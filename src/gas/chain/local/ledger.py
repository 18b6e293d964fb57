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
from gas.chain.local import money, subnets, weights
from gas.chain.local.calls import JsonValue, SignedCall, sign_call
from gas.chain.local.epochs import next_due, run_due
from gas.chain.local.schema import connect
from gas.chain.local.state import Totals, Transaction
from gas.clock import Clock
from gas.errors import ChainError, ChainRefused, ChainUnreachable

__all__ = ["MAX_GAP_BLOCKS", "Ledger"]

MAX_GAP_BLOCKS: Final = 7200
"""Most blocks that pass between two openings of the ledger: beyond it the chain counts as having stood still."""

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
        row = self._sql.execute("SELECT chain_id, manual, block_ms FROM ledger").fetchone()
        self.chain_id: str = row["chain_id"]
        self.manual: bool = bool(row["manual"])
        self.block_seconds: float = row["block_ms"] / 1000

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._sql.close()

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
        with self._write() as tx:
            expected = tx.nonce(call.signer)
            if call.nonce != expected:
                raise ChainRefused(
                    f"The nonce is {call.nonce}, and {expected} is next: a replay, or out of turn.", code="bad_nonce"
                )
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

    def advance_to(self, block: int) -> int:
        """Let blocks pass on a manual ledger until ``block``; does nothing when it is there already."""
        self._require_manual()
        with self._write(until=block) as tx:
            return tx.block

    def block(self) -> int:
        """The newest block, with every epoch up to it run."""
        with self.read() as tx:
            target, anchor = self._target(tx.sql)
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
        if not self.manual:
            raise ChainRefused("This ledger's blocks follow the clock.", code="not_manual")

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
                    stored = int(self._sql.execute("SELECT block FROM ledger").fetchone()[0])
                    # Epochs on the way move the stored block, but not where the way ends.
                    until, more = max(until, stored + more), 0
                    target, anchor = self._target(self._sql, until)
                    self._note_time(anchor)
                    due = next_due(Transaction(self._sql, stored), target)
                    if due is None:
                        tx = Transaction(self._sql, target)
                        self._sql.execute("UPDATE ledger SET block = ?", (target,))
                        yield tx
                    else:
                        tx = Transaction(self._sql, due.block)
                        self._sql.execute("UPDATE ledger SET block = ?", (due.block,))
                        run_due(tx, due.netuid)
                    tx.check_conservation()
                    self._sql.execute("COMMIT")
                finally:
                    if self._sql.in_transaction:
                        self._sql.execute("ROLLBACK")
                if due is None:
                    return

    def _target(self, sql: sqlite3.Connection, manual_target: int = 0) -> tuple[int, tuple[int, int] | None]:
        """The block that the clock asks for, and a new (time, block) to count from when the clock has jumped.

        The clock is read inside the transaction, so that processes that wait for each other don't look like a clock
        that goes back.
        """
        row = sql.execute("SELECT manual, block_ms, anchor_ms, anchor_block, seen_ms, block FROM ledger").fetchone()
        block = int(row["block"])
        if row["manual"]:
            return max(block, manual_target), None
        now = int(self._clock.time() * 1000)
        if now < row["seen_ms"] - row["block_ms"]:
            return block, (now, block)
        target = int(row["anchor_block"]) + (now - row["anchor_ms"]) // row["block_ms"]
        if target > block + MAX_GAP_BLOCKS:
            return block + MAX_GAP_BLOCKS, (now, block + MAX_GAP_BLOCKS)
        return max(block, target), None

    def _note_time(self, anchor: tuple[int, int] | None) -> None:
        if self.manual:
            return
        if anchor is not None:
            self._sql.execute("UPDATE ledger SET anchor_ms = ?, anchor_block = ?", anchor)
        self._sql.execute("UPDATE ledger SET seen_ms = ?", (int(self._clock.time() * 1000),))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise ChainRefused("The call breaks a constraint of the ledger.", code="constraint") from error
    except sqlite3.Error as error:
        raise ChainUnreachable("The ledger's file can't be used now.") from error
