"""Refuse files whose weights are quantized already, by the name of what quantized them."""

from collections.abc import Iterable
from pathlib import Path

from mlc_controlnet.errors import UserError

# Tool -> ends of names that it, and nothing else, gives to tensors beside a weight.
_MARKS = {
    "bitsandbytes": (".absmax", ".quant_map", ".SCB", "bitsandbytes__nf4", "bitsandbytes__fp4"),
    "quanto": (".weight._data", ".weight._scale"),
    "torchao or GPTQ": (".qweight", ".qzeros"),
    "ComfyUI's float8": (".scale_weight", "scaled_fp8"),
}
_REMEDY = "take the model in float16 or float32, and choose what its bundle stores with --weights"


def check_is_not_gguf(path: Path) -> None:
    """Raise UserError for a file of llama.cpp's format."""
    if path.suffix.lower() == ".gguf":
        raise UserError(str(path), "a GGUF file, whose weights are quantized already", "float16 or float32", _REMEDY)


def check_is_not_quantized(path: Path, names: Iterable[str]) -> None:
    """Raise UserError if names of tensors are those of a quantized model."""
    listed = list(names)
    for tool, marks in _MARKS.items():
        if found := next((name for name in listed if name.endswith(marks)), None):
            raise UserError(
                str(path), f"weights that {tool} quantized already ({found})", "float16 or float32", _REMEDY
            )
