"""One open transaction of the ledger: its block, and the few reads and writes that every rule is built of."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import cast

from gas.chain.base import Hyperparameters
from gas.chain.local.rules import MAX_ISSUANCE, Economics, read_rules
from gas.errors import ChainError, ChainRefused, NotRegistered
from gas.types import Rao

__all__ = ["Subnet", "Totals", "Transaction"]


@dataclass(frozen=True, slots=True)
class Totals:
    """Where all money is; ``balances + staked + burned == issued`` at every block.

    Attributes:
        issued: Rao ever minted.
        balances: Rao on accounts.
        staked: Rao staked to hotkeys.
        burned: Rao gone for good.
    """

    issued: Rao
    balances: Rao
    staked: Rao
    burned: Rao


@dataclass(frozen=True, slots=True)
class Subnet:
    """One subnet's row.

    Attributes:
        netuid: Its number.
        owner: Coldkey that may change the hyperparameters.
        owner_hotkey: Hotkey that gets the owner's share.
        hyperparameters: Its rules.
        economics: Its money.
        last_epoch: Block of the last epoch, or of the founding.
        epochs: How many epochs have run.
        price: Registration price in rao right after the last registration.
        price_block: Block of that registration.
    """

    netuid: int
    owner: str
    owner_hotkey: str
    hyperparameters: Hyperparameters
    economics: Economics
    last_epoch: int
    epochs: int
    price: int
    price_block: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open transaction as of one block.

    Attributes:
        sql: The connection, inside ``BEGIN``.
        block: The block in which the calls of this transaction are included.
        now_ms: Time of day in milliseconds when it began; 0 where nothing is written.
    """

    sql: sqlite3.Connection
    block: int
    now_ms: int = 0

    def subnet(self, netuid: int) -> Subnet:
        """A subnet.

        Raises:
            ChainRefused: ``unknown_subnet``.
        """
        # A number beyond u16 may be beyond what SQLite takes, too.
        possible = 0 <= netuid <= 65535
        row = possible and self.sql.execute("SELECT * FROM subnets WHERE netuid = ?", (netuid,)).fetchone()
        if not row:
            raise ChainRefused(f"There is no subnet {netuid}.", code="unknown_subnet")
        return Subnet(
            netuid=netuid,
            owner=row["owner"],
            owner_hotkey=row["owner_hotkey"],
            hyperparameters=read_rules(Hyperparameters, row["hyperparameters"]),
            economics=read_rules(Economics, row["economics"]),
            last_epoch=row["last_epoch"],
            epochs=row["epochs"],
            price=row["price"],
            price_block=row["price_block"],
        )

    def neuron(self, netuid: int, hotkey: str) -> sqlite3.Row:
        """The row of a hotkey's neuron.

        Raises:
            NotRegistered: It has none.
        """
        rows = self.sql.execute("SELECT * FROM neurons WHERE netuid = ? AND hotkey = ?", (netuid, hotkey)).fetchall()
        if not rows:
            raise NotRegistered(f"The hotkey is not registered on subnet {netuid}.", hint="Register it first.")
        return cast(sqlite3.Row, rows[0])

    def root(self) -> str:
        """The ledger's root key."""
        return str(self._value("SELECT root FROM ledger"))

    def owner_of(self, hotkey: str) -> str | None:
        """The coldkey that owns a hotkey, or None when nobody has registered it yet."""
        row = self.sql.execute("SELECT coldkey FROM hotkeys WHERE hotkey = ?", (hotkey,)).fetchone()
        return None if row is None else str(row[0])

    def balance(self, address: str) -> Rao:
        """Free rao of an account; 0 for one that nobody has seen."""
        row = self.sql.execute("SELECT balance FROM accounts WHERE address = ?", (address,)).fetchone()
        return Rao(0 if row is None else int(row[0]))

    def nonce(self, address: str) -> int:
        """How many calls of this signer are included."""
        row = self.sql.execute("SELECT nonce FROM accounts WHERE address = ?", (address,)).fetchone()
        return 0 if row is None else int(row[0])

    def stake(self, netuid: int, hotkey: str) -> Rao:
        """Rao staked to a hotkey on a subnet."""
        row = self.sql.execute("SELECT amount FROM stakes WHERE netuid = ? AND hotkey = ?", (netuid, hotkey)).fetchone()
        return Rao(0 if row is None else int(row[0]))

    def credit(self, address: str, amount: int) -> None:
        """Add to an account."""
        self.sql.execute(
            "INSERT INTO accounts (address, balance) VALUES (?, ?) "
            "ON CONFLICT (address) DO UPDATE SET balance = balance + excluded.balance",
            (address, amount),
        )

    def debit(self, address: str, amount: int) -> None:
        """Take from an account.

        Raises:
            ChainRefused: ``insufficient_balance``.
        """
        have = self.balance(address)
        if have < amount:
            raise ChainRefused(f"The account holds {have} rao, and {amount} are needed.", code="insufficient_balance")
        self.sql.execute("UPDATE accounts SET balance = balance - ? WHERE address = ?", (amount, address))

    def add_stake(self, netuid: int, hotkey: str, amount: int) -> None:
        """Change a hotkey's stake; the table refuses to go below 0."""
        self.sql.execute(
            "INSERT INTO stakes (netuid, hotkey, amount) VALUES (:netuid, :hotkey, MAX(:amount, 0)) "
            "ON CONFLICT (netuid, hotkey) DO UPDATE SET amount = amount + :amount",
            {"netuid": netuid, "hotkey": hotkey, "amount": amount},
        )

    def mint(self, amount: int) -> int:
        """Issue new money for the caller to place; returns what the cap leaves of ``amount``."""
        minted = min(amount, MAX_ISSUANCE - int(self._value("SELECT issued FROM ledger")))
        self.sql.execute("UPDATE ledger SET issued = issued + ?", (minted,))
        return minted

    def burn(self, amount: int) -> None:
        """Count money that the caller has taken away as gone for good."""
        self.sql.execute("UPDATE ledger SET burned = burned + ?", (amount,))

    def totals(self) -> Totals:
        """Where all money is."""
        return Totals(
            issued=Rao(int(self._value("SELECT issued FROM ledger"))),
            balances=Rao(int(self._value("SELECT COALESCE(SUM(balance), 0) FROM accounts"))),
            staked=Rao(int(self._value("SELECT COALESCE(SUM(amount), 0) FROM stakes"))),
            burned=Rao(int(self._value("SELECT burned FROM ledger"))),
        )

    def check_conservation(self) -> None:
        """Refuse to commit a transaction in which money appears or vanishes.

        Raises:
            ChainError: ``not_conserved``: a fault of the ledger itself.
        """
        totals = self.totals()
        if totals.balances + totals.staked + totals.burned != totals.issued:
            raise ChainError("The ledger's sums don't agree; the call is not included.", code="not_conserved")

    def _value(self, query: str) -> int | str:
        value: int | str = self.sql.execute(query).fetchone()[0]
        return value
