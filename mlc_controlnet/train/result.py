"""What a run leaves: checkpoints to go on from, and the ControlNet to build from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mlc_controlnet.errors import UserError
from mlc_controlnet.train import checkpoints
from mlc_controlnet.train.base import Base
from mlc_controlnet.train.control import ControlledUNet
from mlc_controlnet.train.ema import EMA


@dataclass(frozen=True)
class RunState:
    """Everything that changes while training.

    There is no random state: what is random follows from seed, epoch and sample, see `chance`.
    """

    model: ControlledUNet
    optimizer: torch.optim.Optimizer
    ema: EMA | None
    scaler: torch.amp.GradScaler | None

    def write(self, folder: Path, step: int, samples: int, data: list[dict[str, object]]) -> None:
        """Fill `folder`. data: where each process' reader stands."""
        weights = {name: p.detach().contiguous().cpu() for name, p in self.model.trainable()}
        save_file(weights, folder / "weights.safetensors")
        self.model.controlnet.save_pretrained(folder / "controlnet")
        checkpoints.write_optimizer(folder, self.optimizer)
        if self.ema is not None:
            averaged = dict(zip(weights, self.ema.values, strict=True))
            save_file(
                {name: value.contiguous().cpu() for name, value in averaged.items()}, folder / "average.safetensors"
            )
        scaler = self.scaler.state_dict() if self.scaler is not None else {}
        about = {"step": step, "samples": samples, "data": data, "scaler": scaler}
        (folder / "state.json").write_text(json.dumps(about), encoding="utf-8")

    def read(self, folder: Path) -> dict[str, Any]:
        """Take over what `write` wrote; returns step, samples and data.

        Raises UserError where it was another model's.
        """
        weights = load_file(folder / "weights.safetensors")
        ours = {name: p.shape for name, p in self.model.trainable()}
        if ours != {name: tensor.shape for name, tensor in weights.items()}:
            got = f"{len(weights)} weights that are not the {len(ours)} of this run"
            remedy = "choose another out, or set trainer.resume to false"
            raise UserError(str(folder), got, "a checkpoint of the same model options", remedy)
        with torch.no_grad():
            for name, parameter in self.model.trainable():
                parameter.copy_(weights[name])
        checkpoints.read_optimizer(folder, self.optimizer)
        if self.ema is not None:
            averaged = folder / "average.safetensors"
            values = load_file(averaged) if averaged.is_file() else weights  # the average begins here
            for (name, _), value in zip(self.model.trainable(), self.ema.values, strict=True):
                value.copy_(values[name])
        about: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if self.scaler is not None and about["scaler"]:
            self.scaler.load_state_dict(about["scaler"])
        return about


def write_result(out: Path, base: Base, model: ControlledUNet, unlocked: bool) -> Path:
    """Write `out/controlnet` in diffusers' layout, and for an unlocked base the whole model as `out/model`."""
    if unlocked:
        whole = base.pipeline(model.unet, model.controlnet)
        checkpoints.write_folder(out / "model", whole.save_pretrained)
    return checkpoints.write_folder(out / "controlnet", model.controlnet.save_pretrained)
