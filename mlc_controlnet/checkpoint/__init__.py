"""A checkpoint in any of its formats -> torch modules. Every tensor is used exactly once, or reported."""

from mlc_controlnet.checkpoint.load import load_checkpoint
from mlc_controlnet.checkpoint.loaded import PART_OF, Checkpoint
from mlc_controlnet.checkpoint.locate import find_model, find_vae, find_weights, model_name

__all__ = ["PART_OF", "Checkpoint", "find_model", "find_vae", "find_weights", "load_checkpoint", "model_name"]
