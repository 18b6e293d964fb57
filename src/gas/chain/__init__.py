"""Chain and keys: one interface, the embedded ledger behind it, and the ecosystem's key files."""
