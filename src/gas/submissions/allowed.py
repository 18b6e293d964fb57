"""What the code of a submission may import and name: lists of what may be used, not of what may not.

``allowed_names.json`` holds, for each module whose contents are known, the functions, classes and constants that
compute on arrays or build layers. It leaves out whatever reads or writes files, loads code, starts processes or
hands out other modules. Modules of :data:`OPEN` are too large or too changeable for such a list; there, a name may
be used unless a word in it says that it loads, saves or downloads.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from importlib import resources
from typing import Final

__all__ = [
    "BUILTINS",
    "DUNDERS",
    "DUNDER_NAMES",
    "REFUSED_ATTRIBUTES",
    "REFUSED_BUILTINS",
    "ROOTS",
    "explain",
    "is_module",
    "may_use",
    "modules",
]

ROOTS: Final = (
    "torch", "torchvision", "torchaudio", "transformers", "timm", "einops", "safetensors", "flash_attn", "PIL", "cv2",
    "skimage", "decord", "numpy", "scipy", "fvcore", "ultralytics", "math", "functools", "typing", "collections",
    "dataclasses", "enum", "abc", "pathlib", "itertools",
)  # fmt: skip
"""Packages from which a submission may import; which parts of them, :func:`may_use` says."""

_MORE: Final = {
    "torch.nn.utils": "clip_grad_norm_ fuse_conv_bn_eval parameters_to_vector remove_spectral_norm remove_weight_norm "
    "spectral_norm vector_to_parameters weight_norm",
    "torch.nn.utils.rnn": "PackedSequence pack_padded_sequence pack_sequence pad_packed_sequence pad_sequence",
    "torch.nn.utils.parametrizations": "orthogonal spectral_norm weight_norm",
    "torch.nn.parameter": "Buffer Parameter UninitializedBuffer UninitializedParameter",
    "torch.nn.attention": "SDPBackend sdpa_kernel",
    "torch.cuda": "device_count current_device empty_cache get_device_capability get_device_name is_available "
    "is_bf16_supported manual_seed manual_seed_all synchronize",
    "torch.cuda.amp": "GradScaler autocast custom_bwd custom_fwd",
    "torch.amp": "GradScaler autocast custom_bwd custom_fwd is_autocast_available",
    "torch.autograd": "Function Variable",
    "torch.backends": "",
    "torch.backends.cudnn": "allow_tf32 benchmark deterministic enabled is_available",
    "torch.backends.mps": "is_available",
    "torchvision": "",
    "torchaudio": "",
    "timm": "create_model is_model list_models",
    "timm.data": "IMAGENET_DEFAULT_MEAN IMAGENET_DEFAULT_STD IMAGENET_INCEPTION_MEAN IMAGENET_INCEPTION_STD "
    "OPENAI_CLIP_MEAN OPENAI_CLIP_STD resolve_data_config resolve_model_data_config",
    "einops": "EinopsError asnumpy einsum pack parse_shape rearrange reduce repeat unpack",
    "einops.layers": "",
    "einops.layers.torch": "EinMix Rearrange Reduce",
    "safetensors": "SafetensorError safe_open",
    "safetensors.torch": "load_file load_model",
    "PIL": "",
    "PIL.Image": "Dither Image Palette Quantize Resampling Transform Transpose alpha_composite blend composite "
    "fromarray frombuffer frombytes linear_gradient merge new radial_gradient",
    "skimage": "img_as_float img_as_float32 img_as_float64 img_as_ubyte",
    "decord": "cpu gpu",
    "decord.bridge": "set_bridge",
    "numpy.typing": "ArrayLike DTypeLike NDArray",
    "numpy.lib": "",
    "numpy.lib.stride_tricks": "sliding_window_view",
    "scipy": "",
    "fvcore": "",
    "ultralytics": "RTDETR YOLO",
    "transformers": "",
    "__future__": "annotations",
}

OPEN: Final = (
    "torchvision.models", "torchvision.transforms", "torchaudio.transforms", "torchaudio.functional",
    "torchaudio.models", "torchaudio.compliance", "transformers.models", "transformers.modeling_outputs",
    "transformers.activations", "timm.layers", "timm.models", "flash_attn", "PIL.ImageChops", "PIL.ImageDraw",
    "PIL.ImageEnhance", "PIL.ImageFilter", "PIL.ImageOps", "PIL.ImageStat", "fvcore.nn", "ultralytics.nn",
)  # fmt: skip
"""Modules of which everything may be used that doesn't sound like input, output or code."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OPEN_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_REFUSED_WORDS: Final = _words(
    "autobackend cached code compile ctypes download eval exec fetch file filename files hf hub import io jit load "
    "loader loads os open parse pickle pretrained profile read remote save socket subprocess sys thop url urls write "
    "zip benchmark"
)
_PIL_MODULES: Final = _words(
    "ExifTags Image ImageCms ImageColor ImageFile ImageFont ImageGrab ImageMath ImageMode ImageMorph ImagePalette "
    "ImagePath ImageQt ImageSequence ImageShow ImageText ImageTk ImageTransform ImageWin PngImagePlugin TiffImagePlugin"
)
"""Modules that those of Pillow import for themselves; their names look like those of classes."""
_HANDED_ON: Final = sys.stdlib_module_names
"""Modules of the standard library that a module imports for itself, and so hands on."""
_CONSTANT: Final = re.compile(r"[A-Z][A-Z0-9_]*")
_TRANSFORMERS_CLASS: Final = re.compile(
    r"(?!Hf|Push|Python|TF|Flax)(?!.*(?:Trainer|Tool|Agent|Pipeline|Callback|Streamer))[A-Z][A-Za-z0-9]*"
)

BUILTINS: Final = _words(
    "ArithmeticError AssertionError AttributeError BaseException DeprecationWarning Ellipsis Exception "
    "FutureWarning IndexError KeyError LookupError NotImplemented NotImplementedError OverflowError RuntimeError "
    "RuntimeWarning StopIteration TypeError UserWarning ValueError Warning ZeroDivisionError abs all any bool "
    "bytearray bytes callable chr classmethod complex dict divmod enumerate filter float format frozenset hash id "
    "int isinstance issubclass iter len list map max min next object ord pow print property range repr reversed "
    "round set slice sorted staticmethod str sum super tuple type zip ImportError FileNotFoundError "
    "ModuleNotFoundError OSError"
)
"""Built-in names that may be used anywhere."""

REFUSED_BUILTINS: Final = _words(
    "eval exec compile open input breakpoint vars globals locals dir help exit quit copyright credits license "
    "memoryview aiter anext"
)
"""Built-in names that may not be used, whatever else the file binds them to."""

DUNDERS: Final = frozenset(
    f"__{name}__"
    for name in _words(
        "init call len getitem setitem contains iter next enter exit repr str eq ne lt le gt ge hash bool int float "
        "add radd iadd sub rsub mul rmul truediv rtruediv floordiv mod pow neg abs matmul and or invert post_init "
        "name doc version all delitem reversed imul ior iand itruediv"
    )
)
"""Dunder attributes that may be read, and dunder methods that may be defined."""

DUNDER_NAMES: Final = frozenset(
    {"__name__", "__doc__", "__all__", "__version__", "__author__", "__file__", "__slots__", "__constants__"}
)
"""Dunder names that may stand alone."""

REFUSED_ATTRIBUTES: Final = _words(
    # modules that others import and so hand on
    "os sys subprocess socket importlib builtins ctypes ctypeslib shutil pickle marshal posix posixpath ntpath "
    "tempfile urllib requests multiprocessing threading asyncio inspect runpy codeop gc linecache pdb webbrowser "
    "zipfile tarfile zipimport pkgutil ssl imp huggingface_hub cpp_extension hub _os _sys _C _ctypes _subprocess bltns "
    # ways from an object to its interpreter
    "f_back f_builtins f_code f_globals f_locals tb_frame tb_next gi_frame gi_code gi_yieldfrom cr_frame cr_code "
    "ag_frame ag_code func_globals func_code co_code co_consts mro "
    # files, processes, code
    "open load loads save dump dumps tofile fromfile from_file memmap imread imwrite imshow read_text read_bytes "
    "write_text write_bytes unlink rmdir mkdir rename touch symlink_to hardlink_to chmod system popen spawn fork execv "
    "execve load_library load_state_dict_from_url save_pretrained push_to_hub hf_hub_download snapshot_download "
    "cached_file compile format_map show unsafe_eval get_type_hints from_buffer_copy load_from_checkpoint "
    "load_checkpoint truetype load_path savetxt savez loadtxt genfromtxt set_submodule add_safe_globals "
    "share_memory share_memory_ cffi from_json_file "
    "get_config_dict load_adapter from_gguf from_encoder_decoder_pretrained from_vision_text_pretrained "
    "from_text_vision_pretrained from_single_file load_vocab _flavour parser genericpath"
)
"""Attributes that no object of an honest model needs; refused on anything, whatever it is."""

_EXPLAIN: Final = {
    "torch.load": "it unpickles; read the weights with safetensors.torch.load_file(weights_path)",
    "torch.hub": "it downloads and runs code",
    "torch.jit": "it loads compiled code",
    "torch.package": "it loads packed code",
    "torch.classes": "it loads native code",
    "torch.ops": "it reaches native code",
    "torch.compile": "it starts a compiler",
    "torch.utils": "it reaches loaders, processes and compilers",
    "numpy.load": "it reads files and may unpickle",
    "pathlib.Path": "it reaches the file system; use PurePath",
    "PIL.Image.open": "it reads files; a model gets its pixels as a tensor",
    "cv2.imread": "it reads files; a model gets its pixels as a tensor",
    "decord.VideoReader": "it reads files; a model gets its frames as a tensor",
    "functools.singledispatch": "it evaluates annotations",
    "typing.get_type_hints": "it evaluates annotations",
    "transformers.pipeline": "it loads from any place; use a model class with the package's own folder",
}


def explain(path: str) -> str:
    """Why a dotted name is refused, where more can be said than that it is not on the list; else empty."""
    return _EXPLAIN.get(path, "")


@cache
def modules() -> dict[str, frozenset[str]]:
    """Names that may be used, by module; modules of :data:`OPEN` are not among the keys."""
    text = resources.files("gas.submissions").joinpath("allowed_names.json").read_text(encoding="utf-8")
    table = {**json.loads(text), **_MORE}
    return {module: frozenset(names.split()) for module, names in table.items()}


def is_module(path: str) -> bool:
    """Whether a dotted path is known to be a module, so that it may be used with a dot only."""
    return path in modules() or path in OPEN


def may_use(path: str) -> bool:
    """Whether a dotted path that starts at an importable package may be used.

    Only the part up to the first name behind the modules is judged: ``torch.nn.Linear.forward`` is as good as
    ``torch.nn.Linear``.
    """
    table = modules()
    parts = path.split(".")
    at = parts[0]
    if at not in table and at not in OPEN:
        return False
    for index, part in enumerate(parts[1:], start=1):
        if at in OPEN:
            # What follows a class is an attribute like any other, not a name of the module.
            last = next((i for i, p in enumerate(parts) if i >= index and p[:1].isupper()), len(parts))
            handed_on = at.startswith("PIL.") and _PIL_MODULES.intersection(parts[index:])
            return not handed_on and all(_sounds_harmless(p) for p in parts[index : last + 1])
        below = f"{at}.{part}"
        if below in table or below in OPEN:
            at = below
            continue
        if part in table[at]:
            return True
        if at in ("cv2", "PIL.Image"):
            return bool(_CONSTANT.fullmatch(part))
        if at == "transformers":
            return bool(_TRANSFORMERS_CLASS.fullmatch(part))
        return part == "__version__"
    return True


def _sounds_harmless(name: str) -> bool:
    words = name.lower().split("_")
    handed_on = name in _HANDED_ON or name in ROOTS
    return bool(_OPEN_NAME.fullmatch(name)) and not handed_on and not _REFUSED_WORDS.intersection(words)
