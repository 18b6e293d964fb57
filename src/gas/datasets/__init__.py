"""Data: where media come from, how they are told apart from their copies, and how a round freezes them.

:mod:`~gas.datasets.registry` names sources, :mod:`~gas.datasets.sources` fetches them at set-up,
:mod:`~gas.datasets.photos` decodes, filters, de-duplicates and splits them, :mod:`~gas.datasets.normalise`
removes what would give a label away, :mod:`~gas.datasets.audit` measures that it did,
:mod:`~gas.datasets.plan` freezes a round, and :mod:`~gas.datasets.cache` decodes each of its media once.
"""
