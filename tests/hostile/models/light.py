"""A few lines in place of torch: importing the real one takes most of an attempt's time.

Attempts that are about torch itself run with the real one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from gas.sandbox import plain, runtime

__all__ = ["LIGHT_TORCH", "in_place_of_torch", "write_light_site"]

LIGHT_TORCH = """
import contextlib
import numpy
float32 = float16 = bfloat16 = uint8 = "some dtype"
channels_last = contiguous_format = "some order"
inference_mode = contextlib.nullcontext
set_num_threads = set_num_interop_threads = id

class Tensor:
    def __init__(self, array):
        self.array = array
    def __len__(self):
        return len(self.array)
    def __getitem__(self, item):
        return Tensor(self.array[item])
    def numpy(self):
        return self.array
    detach = float = cpu = lambda self: self

class nn:
    class Module:
        def eval(self):
            return self
        def modules(self):
            return [self]
        def __call__(self, batch):
            return self.forward(batch)
    class Conv2d(Module):
        pass

def tensor(values, dtype=numpy.float32):
    return Tensor(numpy.array(values, dtype=dtype))

def zeros(*shape):
    return Tensor(numpy.zeros(shape))

def empty(shape, dtype):
    return Tensor(numpy.empty(shape, numpy.uint8))
"""


def write_light_site(folder: Path) -> Path:
    """Write the stand-in packages below a folder; returns the site folder."""
    site = folder / "site-packages"
    for name, text in {
        "torch/__init__.py": LIGHT_TORCH,
        "safetensors/__init__.py": "",
        "safetensors/torch.py": "",
        "gas/secret.py": "",
    }.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text, encoding="utf-8")
    for path in (site, *site.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return site


@contextlib.contextmanager
def in_place_of_torch(site: Path) -> Iterator[None]:
    """Sandboxes that are made and started meanwhile see the stand-ins; this process never imports them."""
    folders = (site, *runtime.host_site_folders())
    with (
        mock.patch.object(runtime, "host_site_folders", lambda: folders),
        mock.patch.object(plain, "host_site_folders", lambda: folders),
    ):
        yield
