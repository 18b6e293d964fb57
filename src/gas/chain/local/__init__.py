"""The embedded chain: a ledger on SQLite with registration, stake, commitments, commit-reveal and Yuma epochs."""
