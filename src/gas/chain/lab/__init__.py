"""The subnet owner's laboratory: many epochs of one subnet, with validators and miners that follow strategies.

:mod:`~gas.chain.lab.scenario` reads what is to be played, :mod:`~gas.chain.lab.strategies` says what a validator does
in an epoch, :mod:`~gas.chain.lab.play` plays it with the same epoch that the ledger runs.
"""
