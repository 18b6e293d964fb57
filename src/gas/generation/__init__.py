"""Making one medium: pipelines, the prompts they are asked with, and the credentials they sign with.

:mod:`~gas.generation.local` loads the local pipelines by name: those that run on a CPU
(:mod:`~gas.generation.resynthesis`, :mod:`~gas.generation.diffusion`, :mod:`~gas.generation.inpainting`,
:mod:`~gas.generation.video`, :mod:`~gas.generation.speech`) and any diffusers model
(:mod:`~gas.generation.diffusers_pipeline`). :mod:`~gas.generation.services` are the providers that are asked over HTTP.
:mod:`~gas.generation.registry` and :mod:`~gas.generation.registry_run` are the validator's own generation,
:mod:`~gas.generation.library` holds an operator's own photos, :mod:`~gas.generation.prompts` draws prompts, and
:mod:`~gas.generation.signing` embeds content credentials.

Nothing is imported here: the modules load torch, ncnn and c2pa.
"""
