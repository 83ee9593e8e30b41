"""Networks from files that the user names: ONNX by onnxruntime, TorchScript by torch.

An ONNX file is parsed data: its operators compute and do nothing else. A TorchScript file is a program in a language
of its own. Its pickles are read by torch's C++ reader, which makes tensors and TorchScript objects and calls no Python;
but the language has operators that write and map files, so a file that names one is refused before it is loaded.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mlc_controlnet.errors import UserError

SUFFIXES = (".onnx", ".pt", ".ts", ".torchscript")
SIZE = 512  # pixels of a side, of a network that takes any
_MEAN, _STD = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)  # of ImageNet, of 0..1
RANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # of pixels 0..255, as a network reads them
    "imagenet": lambda pixels: (pixels / 255 - _MEAN) / _STD,
    "unit": lambda pixels: pixels / 255,
    "signed": lambda pixels: pixels / 127.5 - 1,
    "bytes": lambda pixels: pixels,
}
_FILE_OPERATORS = re.compile(rb"\b(?:torch|ops\.aten|aten)\s*\.\s*(save|from_file)\b|\bops\.(?!aten\b|prim\b)(\w+)")


@dataclass(frozen=True)
class Network:
    """A loaded network with one picture as its input.

    Attributes:
        run: the input -> the outputs.
        size: width and height that it wants; None: any.
        channels_last: whether it wants [1, H, W, 3] instead of [1, 3, H, W].
        dtype: of the input; a network of integers wants 0..255.
    """

    run: Callable[[np.ndarray], Sequence[np.ndarray]]
    size: tuple[int, int] | None
    channels_last: bool = False
    dtype: str = "float32"

    def __call__(self, picture: Image.Image, pixel_range: str, side: int | None) -> Sequence[np.ndarray]:
        """Run it on a picture, which is stretched to its size."""
        size = self.size or (side or SIZE,) * 2
        pixels = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float32)
        values = pixels if self.dtype.startswith(("int", "uint")) else RANGES[pixel_range](pixels)
        shaped = values[None] if self.channels_last else values.transpose(2, 0, 1)[None]
        return self.run(np.ascontiguousarray(shaped.astype(self.dtype)))


def load_network(path: Path) -> Network:
    """Load a file. Raises UserError for one that is missing, of another kind, or damaged, and without its package."""
    if not path.is_file():
        raise UserError(str(path), "no such file", "a network as ONNX or TorchScript", "check the path")
    if path.suffix not in SUFFIXES:
        raise UserError(str(path), f"the suffix {path.suffix!r}", f"one of {', '.join(SUFFIXES)}", "export it as ONNX")
    return _load_onnx(path) if path.suffix == ".onnx" else _load_torchscript(path)


def _load_onnx(path: Path) -> Network:
    try:
        import onnxruntime
    except ImportError:
        remedy = "pip install onnxruntime, or mlc-controlnet with its extra annotators"
        raise UserError("package onnxruntime", "a Python without it", "onnxruntime for .onnx files", remedy) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # the error below tells it in one line
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class for each kind of damage
        raise _unusable(path, error, "an ONNX file that onnxruntime runs") from None
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        got = "; ".join(f"{one.name} {one.shape}" for one in inputs)
        raise UserError(str(path), f"the inputs {got}", "one picture, [1, 3, H, W] or [1, H, W, 3]", "export it so")
    shape, name = inputs[0].shape, inputs[0].name
    channels_last = shape[3] == 3 and shape[1] != 3
    height, width = (shape[1], shape[2]) if channels_last else (shape[2], shape[3])
    is_fixed = isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0

    def run(picture: np.ndarray) -> Sequence[np.ndarray]:
        return [np.asarray(output) for output in session.run(None, {name: picture})]

    dtype = {"float": "float32"}.get(kind := inputs[0].type.removeprefix("tensor(").rstrip(")"), kind)
    return Network(run, (width, height) if is_fixed else None, channels_last, dtype)


def _load_torchscript(path: Path) -> Network:
    content = path.read_bytes()
    _check_program(path, content)
    try:
        import torch
    except ImportError:
        remedy = "install mlc-controlnet with its extra compile, or export the network as ONNX"
        raise UserError("package torch", "a Python without it", "torch for TorchScript files", remedy) from None
    try:
        module = torch.jit.load(io.BytesIO(content), map_location="cpu").eval()
    except Exception as error:  # of C++: RuntimeError and others
        raise _unusable(path, error, "a TorchScript file, as torch.jit.save writes it") from None

    def run(picture: np.ndarray) -> Sequence[np.ndarray]:
        with torch.inference_mode():
            output = module(torch.from_numpy(picture))
        outputs = output.values() if isinstance(output, dict) else [output] if torch.is_tensor(output) else output
        return [one.numpy() for one in outputs]

    return Network(run, None)


def _check_program(path: Path, content: bytes) -> None:
    """Raise UserError for a file that is no archive of TorchScript, or whose program could touch files."""
    wanted = "a TorchScript file, as torch.jit.save writes it"
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name for name in archive.namelist() if re.search(r"(^|/)code/.*\.py$", name)]
            sources = [archive.read(name) for name in names]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError):  # RuntimeError: encrypted
        raise UserError(str(path), "a damaged file, or another kind", wanted, "export it again, or as ONNX") from None
    if not sources:
        raise UserError(str(path), "no program: weights alone, or another kind", wanted, "export the network as ONNX")
    for source in sources:
        if found := _FILE_OPERATORS.search(source):
            got = f"a program that calls {found.group().decode()}"
            raise UserError(str(path), got, "one that only computes", "export the network as ONNX")


def _unusable(path: Path, error: Exception, wanted: str) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(str(path), f"a file that fails: {reason[:160]}", wanted, "export it again")
