"""Load a checked package and turn it into a function from a batch to logits."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["Model", "ModelError", "explain", "import_libraries", "load", "onnx_providers"]

Model = Callable[[NDArray[Any]], NDArray[np.float32]]
"""From a batch (n, *input_shape) to logits (n, num_classes)."""

_MEMORY_WORDS = (
    "can't allocate memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "cannot allocate memory",
    "failed to allocate memory",
    "bad_array_new_length",
)

_NO_VIEW = "view size is not compatible"


class ModelError(Exception):
    """The model broke the contract.

    Args:
        code: A code of ``gas.errors.ModelFailed``.
        text: One sentence.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def explain(error: BaseException, *, code: str, doing: str) -> ModelError:
    """Turn anything that the submission's code raised into one of the agreed codes."""
    if isinstance(error, ModelError):
        return error
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - a stranger's __str__ may raise anything
        text = ""
    if isinstance(error, MemoryError) or any(words in text.lower() for words in _MEMORY_WORDS):
        return ModelError("out_of_memory", f"Out of memory while {doing}: {text[:500]}")
    return ModelError(code, f"{type(error).__name__} while {doing}: {text[:1500]}")


def import_libraries(package_format: str, threads: int) -> None:
    """Import what the runner needs while it may still do more than the submission.

    Args:
        package_format: ``"onnx"``, ``"safetensors"``, or ``"selfcheck"`` (nothing more).
        threads: Number of threads to compute with.
    """
    if package_format == "onnx":
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
    elif package_format == "safetensors":
        import safetensors.torch  # noqa: F401 - here, because the submission may no longer do what imports do
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)


def load(config: dict[str, Any]) -> Model:
    """Load the package; runs the submission's code.

    Args:
        config: The parent's description: ``model_folder``, ``format``, ``entry``, ``weights_file``,
            ``num_classes``, ``dtype``, ``device``, ``params``, ``threads``, ``batch_size``, ``input_shape``.

    Raises:
        ModelError: The package does not keep the contract.
    """
    return _load_onnx(config) if config["format"] == "onnx" else _load_torch(config)


def _checked(told: Any, samples: int, width: int) -> NDArray[np.float32]:
    # What calls itself a tensor may say anything of its shape; an array made of it can't.
    answer = np.asarray(told)
    if answer.shape != (samples, width):
        raise ModelError(
            "bad_output",
            f"The model must answer with shape ({samples}, {width}); it answered with {tuple(answer.shape)}.",
        )
    if answer.dtype.kind not in "fiub":
        raise ModelError("bad_output", f"The model must answer with numbers; it answered with {answer.dtype}.")
    return np.ascontiguousarray(answer, dtype=np.float32)


def _load_onnx(config: dict[str, Any]) -> Model:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = os.path.join(config["model_folder"], config["entry"])  # noqa: PTH118
    providers = onnx_providers(config.get("device", "cpu"), onnxruntime.get_available_providers())
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            "load_failed",
            f"The graph must have one input and one output; it has {len(inputs)} and {len(outputs)}.",
        )
    feed, fetch, width = inputs[0].name, outputs[0].name, int(config["num_classes"])
    private = np.empty((config["batch_size"], *config["input_shape"]), dtype=config["input_dtype"])

    def run(batch: NDArray[Any]) -> NDArray[np.float32]:
        samples = len(batch)
        np.copyto(private[:samples], batch)
        answer = session.run([fetch], {feed: private[:samples]})[0]
        if not isinstance(answer, np.ndarray):
            raise ModelError("bad_output", f"The graph must answer with a tensor; it answered with {type(answer)}.")
        return _checked(answer, samples, width)

    return run


def onnx_providers(device: str, available: list[str]) -> list[str]:
    """Where ONNX Runtime computes: on the card when that is asked for and its build can, and always on the CPU else.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        available: What the installed build offers.
    """
    cuda = ["CUDAExecutionProvider"] if device == "cuda" and "CUDAExecutionProvider" in available else []
    return [*cuda, "CPUExecutionProvider"]


def _load_torch(config: dict[str, Any]) -> Model:
    import torch

    folder = config["model_folder"]
    path = os.path.join(folder, config["entry"])  # noqa: PTH118
    spec = importlib.util.spec_from_file_location("model", path)
    if spec is None or spec.loader is None:
        raise ModelError("load_failed", f"{config['entry']} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "load_model", None)):
        raise ModelError("load_failed", f"{config['entry']} defines no function load_model.")
    weights = os.path.join(folder, config["weights_file"])  # noqa: PTH118
    network = module.load_model(weights, config["num_classes"], **config["params"])
    if not isinstance(network, torch.nn.Module):
        raise ModelError(
            "load_failed", f"load_model must return a torch.nn.Module; it returned a {type(network).__name__}."
        )
    network.eval()
    width, device = int(config["num_classes"]), config.get("device", "cpu")
    if device != "cpu":
        network = network.to(device)
    element = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[config["dtype"]]
    arranged = device == "cpu" and _arrange(network, torch.channels_last)
    # The shared memory is read-only: a model that works in place would crash on it, so it gets a copy.
    private = torch.empty((config["batch_size"], *config["input_shape"]), dtype=getattr(torch, config["input_dtype"]))
    if device != "cpu":
        # Only from page-locked memory does a copy to the card run by itself.
        private = private.pin_memory()

    def forward(batch: NDArray[Any]) -> object:
        view = private[: len(batch)]
        np.copyto(view.numpy(), batch)
        with torch.inference_mode():
            shown = view if device == "cpu" else view.to(device, non_blocking=True)
            if element is torch.float32:
                return network(shown)
            with torch.autocast(device, dtype=element):
                return network(shown)

    begun = False

    def run(batch: NDArray[Any]) -> NDArray[np.float32]:
        nonlocal arranged, begun
        samples, first, begun = len(batch), not begun, True
        try:
            answer = forward(batch)
        except Exception as error:  # what the submission's code raises may be anything
            # A model may rely on the order of what its convolutions give it; then it gets the usual one.
            if not arranged or not (first or _NO_VIEW in str(error)):
                raise
            arranged = False
            _arrange(network, torch.contiguous_format)
            answer = forward(batch)
        logits = _logits(answer).detach().float().cpu().numpy()
        return _checked(logits, samples, width)

    return run


def _arrange(network: torch.nn.Module, order: torch.memory_format) -> bool:
    """Lay out the weights of convolutions; whether there are any.

    With the channels last, a convolution and all that follows it read and write pixels in one piece: a fifth less
    time. Sums are added in another order, so that answers differ in their last digits.
    """
    import torch

    found = False
    for module in network.modules():
        if type(module) is torch.nn.Conv2d:
            module.weight.data = module.weight.data.contiguous(memory_format=order)
            found = True
    return found


def _logits(answer: object) -> torch.Tensor:
    """Find the tensor of logits in what a model returned."""
    import torch

    found: object = answer
    if isinstance(answer, dict):
        found = answer.get("logits", answer.get("output"))
    elif isinstance(answer, tuple) and len(answer) == 1:
        found = answer[0]
    elif not isinstance(answer, torch.Tensor):
        found = getattr(answer, "logits", None)
    if not isinstance(found, torch.Tensor):
        raise ModelError(
            "bad_output",
            "The model must return a tensor, an object with .logits, a dict with logits or output, or a 1-tuple;"
            f" it returned a {type(answer).__name__}.",
        )
    return found
