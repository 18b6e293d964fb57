"""Judging one medium: :func:`gas.verification.pipeline.verify_medium` and its parts.

:mod:`~gas.verification.provenance` checks content credentials, :mod:`~gas.verification.duplicates` finds copies.

Nothing is imported here: the modules load c2pa and faiss.
"""
