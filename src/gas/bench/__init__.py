"""Evaluate one model on one frozen round, in the sandbox; score it; show it.

Import from the modules, so that a command that only needs figures loads no more than figures:

- ``engine.evaluate`` runs a model; ``run`` holds its settings and its result, ``feed`` brings the media,
  ``batches`` decides the secret order, ``records`` is the result's form on disk;
- ``metrics.compute_metrics`` scores the records, ``metrics.judgements`` says whom they paid;
- ``summary`` and ``report`` turn runs into one HTML page;
- ``executors`` says where shards are computed.
"""
