"""A diffusers model's folder: found or fetched, and checked before anything of it is loaded.

What is covered: only the classes of diffusers and transformers are named, weights are safetensors, and the folder
brings no code of its own. What is not: whether the weights are what their name says.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gas.errors import ConfigurationError, SourceUnreachable

__all__ = ["ModelFolder", "find_model", "read_folder", "weight_bytes"]

_INDEX: Final = "model_index.json"
_MOST_JSON: Final = 16 * 1024 * 1024
_MOST_HEADER: Final = 100 * 1024 * 1024
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_WANTED: Final = ("*.json", "*/*.json", "*/*.safetensors", "*/*.txt", "*/*.model")
_UNWANTED: Final = ("*.fp16.*", "*.bf16.*", "*.non_ema.*")
_PICKLES: Final = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl", ".msgpack"})


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that passed the checks.

    Attributes:
        path: Where it lies.
        class_name: The pipeline's class in diffusers.
        title: Short name of the model, for content credentials and logs; no path of this machine.
    """

    path: Path
    class_name: str
    title: str


def find_model(
    name: str, *, downloads: bool = False, endpoint: str | None = None, cache: Path | None = None
) -> ModelFolder:
    """Find a model by folder or hub name.

    Args:
        name: A folder with ``model_index.json``, or ``owner/name`` on the Hugging Face hub.
        downloads: Whether a hub name may be fetched; otherwise it must be in the hub's local cache already.
        endpoint: Another hub's address.
        cache: Folder of the hub's local cache; its own default when left out.

    Raises:
        ConfigurationError: ``model_missing`` or ``model_refused``: nothing there, or not fit to be loaded.
        SourceUnreachable: The hub doesn't answer.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return read_folder(folder, folder.resolve().name)
    if not _HUB_NAME.fullmatch(name):
        raise ConfigurationError(
            f"There is no model in {name[:200]!r}.",
            code="model_missing",
            hint="Name a folder with model_index.json, or a hub model as owner/name.",
        )
    return read_folder(_snapshot(name, downloads, endpoint, cache), name)


def read_folder(folder: Path, title: str) -> ModelFolder:
    """Check a model's folder.

    Args:
        folder: With ``model_index.json`` and a folder for each component.
        title: What to call the model.

    Raises:
        ConfigurationError: ``model_missing`` (no such index) or ``model_refused`` (it names code from elsewhere, has
            weights that only pickle can read, or is damaged).
    """
    if not (folder / _INDEX).is_file():
        raise ConfigurationError(
            f"There is no {_INDEX} in {folder}.",
            code="model_missing",
            hint="A diffusers pipeline saves itself with one.",
        )
    index = _json(folder / _INDEX)
    class_name = index.get("_class_name")
    if not isinstance(class_name, str) or not class_name.isidentifier():
        raise _refused(f"{_INDEX} names no pipeline.")
    for component, value in index.items():
        if component.startswith("_") or not isinstance(value, list):
            continue
        if not component.isidentifier() or len(value) != 2:
            raise _refused(f"{_INDEX} has a damaged entry.")
        library, class_ = value
        if library is None and class_ is None:
            continue
        if not isinstance(library, str) or not isinstance(class_, str) or not _is_known(library):
            raise _refused(f"the component {component} is code from elsewhere ({str(library)[:60]!r}).")
        _check_component(folder / component, component)
    return ModelFolder(folder, class_name, title)


def weight_bytes(folder: Path, item_bytes: int) -> int:
    """Memory that the weights take once loaded.

    Args:
        folder: A checked model's.
        item_bytes: Bytes of one number after loading.

    Raises:
        ConfigurationError: A file is damaged.
    """
    total = 0
    for path in folder.glob("*/*.safetensors"):
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length)) if 2 <= length <= _MOST_HEADER else None
            tensors = [value for name, value in header.items() if name != "__metadata__"] if header else []
            if not tensors:
                raise ValueError("no tensors")
            for tensor in tensors:
                count = 1
                for side in tensor["shape"]:
                    count *= int(side)
                total += count * item_bytes
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _refused(f"{path.parent.name}/{path.name} is damaged.") from error
    return total


def _check_component(folder: Path, name: str) -> None:
    if not folder.is_dir():
        raise _refused(f"the component {name} is missing.")
    endings = {path.suffix.lower() for path in folder.iterdir() if path.is_file()}
    if endings & _PICKLES and ".safetensors" not in endings:
        raise _refused(f"the weights of {name} are not safetensors.")
    if ".py" in endings:
        raise _refused(f"the component {name} brings code of its own.")
    for path in folder.glob("*config.json"):
        if "auto_map" in _json(path):
            raise _refused(f"the component {name} asks for code of its own.")


def _is_known(library: str) -> bool:
    if library in ("diffusers", "transformers"):
        return True
    import diffusers.pipelines

    # Older pipelines name their own module, e.g. stable_diffusion for its safety checker.
    return library.isidentifier() and hasattr(diffusers.pipelines, library)


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_JSON:
            raise ValueError("too large")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _refused(f"{path.name} is damaged.") from error
    if not isinstance(document, dict):
        raise _refused(f"{path.name} is damaged.")
    return document


def _refused(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The model is not loaded: {why}",
        code="model_refused",
        hint="Take a model that diffusers and safetensors alone can load.",
    )


def _snapshot(name: str, downloads: bool, endpoint: str | None, cache: Path | None) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name,
                endpoint=endpoint,
                cache_dir=cache,
                local_files_only=not downloads,
                allow_patterns=list(_WANTED),
                ignore_patterns=list(_UNWANTED),
            )
        )
    except LocalEntryNotFoundError as error:
        # Without an answer that it can use, the library looks into its cache, and says only that it isn't there.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, HfHubHTTPError):
            cause = cause.__cause__ or cause.__context__
        if downloads:
            raise _no_snapshot(name, cause.response.status_code if cause is not None else None) from error
        raise ConfigurationError(
            f"The model {name} is not on this machine.",
            code="model_missing",
            hint="Allow downloads (--allow-downloads, or MINER_DOWNLOADS), or fetch it before and name its folder.",
        ) from error
    except HfHubHTTPError as error:
        raise _no_snapshot(name, error.response.status_code) from error
    except (httpx.HTTPError, OSError) as error:
        raise SourceUnreachable("The model hub does not answer.") from error
    except (ValueError, TypeError, LookupError) as error:
        raise SourceUnreachable("The model hub's answer makes no sense.") from error


def _no_snapshot(name: str, status: int | None) -> ConfigurationError | SourceUnreachable:
    if status in (401, 403, 404):
        return ConfigurationError(
            f"The hub has no model {name} for this account (HTTP {status}).", code="model_missing"
        )
    if status is None:
        return SourceUnreachable("The model hub does not answer, and the model is not in its cache.")
    return SourceUnreachable(f"The model hub answered HTTP {status}.")
