"""The local ledger over WebSocket, for services in several processes and on several machines."""
