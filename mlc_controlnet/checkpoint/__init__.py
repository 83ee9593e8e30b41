"""A checkpoint in any of its formats -> torch modules. Every tensor is used exactly once, or reported."""

from mlc_controlnet.checkpoint.added_controlnets import load_added_controlnets
from mlc_controlnet.checkpoint.controlnet_names import name_controlnets
from mlc_controlnet.checkpoint.load import load_checkpoint
from mlc_controlnet.checkpoint.loaded import PART_OF, Checkpoint, part_of
from mlc_controlnet.checkpoint.locate import find_local_model, find_model, find_vae, find_weights, model_name
from mlc_controlnet.checkpoint.mapped_tensors import give_back

__all__ = [
    "PART_OF",
    "Checkpoint",
    "find_local_model",
    "find_model",
    "find_vae",
    "find_weights",
    "give_back",
    "load_added_controlnets",
    "load_checkpoint",
    "model_name",
    "name_controlnets",
    "part_of",
]
