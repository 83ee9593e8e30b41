"""Writes and reads the checkpoints of a run, and writes its result."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mlc_controlnet.errors import UserError
from mlc_controlnet.train import checkpoints
from mlc_controlnet.train.base import Base
from mlc_controlnet.train.controlled_unet import ControlledUNet
from mlc_controlnet.train.ema import EMA


@dataclass(frozen=True)
class RunState:
    """Everything that changes during training.

    There is no random state: the seed, the epoch and the sample determine everything random, see `randomness`.
    """

    model: ControlledUNet
    optimizer: torch.optim.Optimizer
    ema: EMA | None
    scaler: torch.amp.GradScaler | None

    def write(self, folder: Path, step: int, samples: int, data: list[dict[str, object]]) -> None:
        """Write a checkpoint into `folder`.

        Args:
            samples: number of samples that the run has taken so far.
            data: the place of each process's reader.
        """
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
        """Restore the checkpoint that `write` wrote, and return its step, samples and data.

        Raises:
            UserError: it belongs to another model, or it is damaged.
        """
        try:
            return self._read(folder)
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            got, remedy = f"a damaged checkpoint ({error})", "delete it to resume from the one before it"
            raise UserError(str(folder), got, "a whole one", remedy) from error

    def _read(self, folder: Path) -> dict[str, Any]:
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
            values = load_file(averaged) if averaged.is_file() else weights  # the average starts here
            for (name, _), value in zip(self.model.trainable(), self.ema.values, strict=True):
                value.copy_(values[name])
        about: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if self.scaler is not None and about["scaler"]:
            self.scaler.load_state_dict(about["scaler"])
        return about


def write_result(out: Path, base: Base, model: ControlledUNet, unlocked: bool) -> Path:
    """Write `out/controlnet` in diffusers' layout and return it. If the UNet was trained too, write `out/model`."""
    if unlocked:
        whole = base.pipeline(model.unet, model.controlnet)
        checkpoints.write_folder(out / "model", whole.save_pretrained)
    return checkpoints.write_folder(out / "controlnet", model.controlnet.save_pretrained)
