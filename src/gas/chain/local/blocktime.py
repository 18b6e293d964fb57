"""How blocks pass: by the clock, or by hand; and the root's calls that switch between the two.

A ledger that is paused is a manual one: its blocks pass only when somebody says so, and its clock counts for nothing.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from gas.chain.local.calls import Params, SignedCall
from gas.chain.local.money import require_root
from gas.chain.local.state import Transaction
from gas.errors import ChainRefused

__all__ = [
    "MAX_ADVANCE_BLOCKS",
    "MAX_GAP_BLOCKS",
    "BlockTime",
    "advance",
    "advance_target",
    "follow_clock",
    "pause",
    "read_block_time",
    "require_manual",
    "resume",
    "stand_still",
]

MAX_GAP_BLOCKS: Final = 7200
"""Most blocks that pass between two openings of the ledger: beyond it the chain counts as having stood still."""

MAX_ADVANCE_BLOCKS: Final = 100_000
"""Most blocks that one signed ``advance`` may let pass."""


@dataclass(frozen=True, slots=True)
class BlockTime:
    """Where the ledger is and what its clock counts from.

    Attributes:
        manual: Whether blocks pass by hand only.
        block_ms: Milliseconds a block.
        anchor_ms: Time of day, in milliseconds, at which ``anchor_block`` began.
        anchor_block: Block from which the clock counts.
        seen_ms: Latest time of day that the ledger has written down.
        block: The stored block.
    """

    manual: bool
    block_ms: int
    anchor_ms: int
    anchor_block: int
    seen_ms: int
    block: int

    def target(self, now_ms: int, by_hand: int = 0) -> tuple[int, tuple[int, int] | None]:
        """The block that is asked for, and a new (time, block) to count from when the clock has jumped.

        Args:
            now_ms: Time of day in milliseconds.
            by_hand: Block to which a manual ledger is to move.

        Returns:
            A block that is never below the stored one; and the new anchor or None. A clock that went back by more
            than a block starts to count anew from where the chain is; one that jumped ahead by more than
            :data:`MAX_GAP_BLOCKS` too.
        """
        if self.manual:
            return max(self.block, by_hand), None
        if now_ms < self.seen_ms - self.block_ms:
            return self.block, (now_ms, self.block)
        target = self.anchor_block + (now_ms - self.anchor_ms) // self.block_ms
        if target > self.block + MAX_GAP_BLOCKS:
            return self.block + MAX_GAP_BLOCKS, (now_ms, self.block + MAX_GAP_BLOCKS)
        return max(self.block, target), None


def read_block_time(sql: sqlite3.Connection) -> BlockTime:
    """The ledger's block time as the open transaction sees it."""
    row = sql.execute("SELECT manual, block_ms, anchor_ms, anchor_block, seen_ms, block FROM ledger").fetchone()
    return BlockTime(bool(row[0]), *(int(value) for value in tuple(row)[1:]))


def stand_still(tx: Transaction) -> int:
    """Make blocks pass by hand only, from this block on; returns it."""
    tx.sql.execute("UPDATE ledger SET manual = 1")
    return tx.block


def follow_clock(tx: Transaction) -> int:
    """Make blocks follow the clock, counted from this block and this time; returns the block."""
    tx.sql.execute(
        "UPDATE ledger SET manual = 0, anchor_ms = ?, anchor_block = ?, seen_ms = ?", (tx.now_ms, tx.block, tx.now_ms)
    )
    return tx.block


def require_manual(tx: Transaction) -> None:
    """Refuse where blocks follow the clock.

    Raises:
        ChainRefused: ``not_manual``.
    """
    if not read_block_time(tx.sql).manual:
        raise ChainRefused(
            "This ledger's blocks follow the clock.", code="not_manual", hint="Pause it first: gascli chain pause."
        )


def pause(tx: Transaction, call: SignedCall) -> int:
    """Stop the clock of the blocks; root only, and harmless on a paused ledger. Returns the block."""
    require_root(tx, call)
    return stand_still(tx)


def resume(tx: Transaction, call: SignedCall) -> int:
    """Let blocks follow the clock again; root only, and harmless where they do. Returns the block."""
    require_root(tx, call)
    return follow_clock(tx) if read_block_time(tx.sql).manual else tx.block


def advance(tx: Transaction, call: SignedCall) -> int:
    """Check a call that moves a manual ledger to a block; root only. Returns the block of the transaction.

    The ledger asks before it moves, and again in the block in which it includes the call. The call names where to go
    and not how far, so that one that is sent twice moves the ledger once.

    Raises:
        ChainRefused: ``not_root``, ``not_manual``, or ``too_far``.
    """
    require_root(tx, call)
    require_manual(tx)
    if advance_target(call) > tx.block + MAX_ADVANCE_BLOCKS:
        raise ChainRefused(f"One call lets at most {MAX_ADVANCE_BLOCKS} blocks pass.", code="too_far")
    return tx.block


def advance_target(call: SignedCall) -> int:
    """The block to which an ``advance`` call wants the ledger moved."""
    return Params(call.params).integer("to_block", 0, 2**53)
