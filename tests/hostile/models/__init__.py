"""Hostile models: one small generator each, each trying one thing.

``table.py`` says what an attempt is, the other modules hold them by subject, and ``suite.py`` runs them on the
rungs of the sandbox that a machine has. ``make security`` prints the table.
"""
