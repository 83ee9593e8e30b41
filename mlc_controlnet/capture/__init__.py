"""torch -> Relax: every component through torch.export (TorchDynamo's own front door) into one IRModule."""

from mlc_controlnet.capture.module import CapturedModel, capture, example_inputs

__all__ = ["CapturedModel", "capture", "example_inputs"]
