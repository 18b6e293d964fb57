"""Packages of detectors, and what can be said of them before anything of them runs.

A package is a zip with one ``.onnx`` file, or with ``model_config.yaml``, ``model.py`` and one ``.safetensors``
file. :func:`check.check` finds all that speaks against one; the sandbox, and not this check, is the boundary.
Import from the modules: ``archive``, ``check``, ``fingerprint``, ``pack``, ``package``, ``scaffold``.
"""
