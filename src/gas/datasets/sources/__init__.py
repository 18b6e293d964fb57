"""Fetching of data sets: one module a kind of source; each runs at set-up, everything after it is offline."""
