"""``gascli demo``: one whole adversarial round on real input, on one machine.

The steps, one module each: :mod:`~gas.cli.demo.cast` (keys and chain), :mod:`~gas.cli.demo.material` (photos),
:mod:`~gas.cli.demo.media` (generators), :mod:`~gas.cli.demo.rounds` (the frozen round),
:mod:`~gas.cli.demo.detectors` (submissions), :mod:`~gas.cli.demo.pay` (weights and emission),
:mod:`~gas.cli.demo.outcome` (tables, JSON and the report). Each step is done once, can be killed at any moment and
goes on where it stopped.
"""
