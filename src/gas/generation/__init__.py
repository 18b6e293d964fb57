"""Making one medium: pipelines, the prompts they are asked with, and the credentials they sign with.

:mod:`~gas.generation.local` loads the embedded pipelines by name (:mod:`~gas.generation.resynthesis` and
:mod:`~gas.generation.diffusion`), :mod:`~gas.generation.library` holds an operator's own photos,
:mod:`~gas.generation.prompts` draws prompts, and :mod:`~gas.generation.signing` embeds content credentials.

Nothing is imported here: the modules load torch, ncnn and c2pa.
"""
