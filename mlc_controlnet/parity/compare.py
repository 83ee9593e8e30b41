"""Compares a whole model with torch at any picture size, without building a bundle."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from mlc_controlnet.capture import capture
from mlc_controlnet.checkpoint import find_model, load_checkpoint, model_name
from mlc_controlnet.compile.library import compile_library
from mlc_controlnet.components import COMPONENTS
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.locations import TUNING_DB
from mlc_controlnet.machine import set_up_threads
from mlc_controlnet.parity.parity import THRESHOLD_DB, check_parity, measure_parity, run_references
from mlc_controlnet.passes.pipeline import clean


def compare_model(
    model: str,
    dtypes: Sequence[str],
    height: int | None,
    width: int | None,
    components: Sequence[str] = COMPONENTS,
    log: Callable[[str], None] = lambda line: None,
) -> Iterator[str]:
    """Compile `model` for this processor and yield one line per dtype: each component's dB against torch in float32.

    Args:
        model: as for `build --model`.
        height, width: picture size in pixels; None: the size that the model was trained on.
        log: takes a line when a part of the work begins.

    Raises:
        UserError: there is no such model, dtype or component.
        ParityError: a component is below THRESHOLD_DB; this comes after the line with its figure.
    """
    set_up_threads()
    with tempfile.TemporaryDirectory() as folder:
        configs = [
            BuildConfig(model, "llvm", (dtype,), Path(folder), TUNING_DB, components=tuple(components))
            for dtype in dtypes
        ]
        checkpoint = load_checkpoint(find_model(model, components), height, width, components=components)
        log(f"capture {model_name(model)} ...")
        captured = [clean(capture(checkpoint, dtype)) for dtype in dtypes]
        shape = checkpoint.shape
        yield f"{model_name(model)}, {shape.height} x {shape.width}, against torch {torch.__version__} in float32, dB"
        log("compute with torch ...")
        references = run_references(checkpoint)
        for config, compiled in zip(configs, captured, strict=True):
            log(f"compile in {compiled.dtype} ...")
            library, _ = compile_library(compiled.module, "compared", compiled.dtype, config, Path(folder), False)
            measured = measure_parity(checkpoint, compiled, library, references)
            figures = ", ".join(f"{name} {db}" for name, db in measured.items())
            yield f"  {compiled.dtype} (at least {THRESHOLD_DB[compiled.dtype]:g}): {figures}"
            check_parity(measured, compiled.dtype)
