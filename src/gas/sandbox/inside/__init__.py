"""The part that runs inside the sandbox; copied nowhere, bound read-only.

Nothing in this folder may import the rest of ``gas``: inside, there is no ``gas``. Only the standard library,
numpy, torch, safetensors and onnxruntime exist there. The parent imports :mod:`.wire` and :mod:`.filters` from
here, so that both sides share one definition.
"""
