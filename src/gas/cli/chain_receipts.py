"""Receipts of committed weights, for the commands that publish and reveal; see :mod:`gas.chain.receipts`."""

from __future__ import annotations

from gas.chain.receipts import Revealed, publish, read_receipt, reveal_kept, sentence_of

__all__ = ["Revealed", "publish", "read_receipt", "reveal_kept", "sentence_of"]
