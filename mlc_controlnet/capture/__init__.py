"""torch -> Relax: every component through torch.export (TorchDynamo's own front door) into one IRModule."""

from mlc_controlnet.capture.module import CapturedModel, capture, example_inputs
from mlc_controlnet.capture.param import Param, Rows

__all__ = ["CapturedModel", "Param", "Rows", "capture", "example_inputs"]
