"""What a training run is: every option with its default and its meaning.

`python -m mlc_controlnet train options` prints this table. Names are NeMo's where NeMo has the option.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import yaml

from mlc_controlnet.errors import UserError, check_one_of

PRECISIONS = ("32", "bf16", "fp16")
FORMATS = ("fill50k", "webdataset")
PREDICTION_TYPES = ("epsilon", "v_prediction")
LR_SCHEDULES = (
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "one_cycle",
)
_DEFAULT_KEYS = {"fill50k": ("source", "target", "prompt"), "webdataset": ("png", "jpg", "txt")}


def _option(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True)
class ModelOptions:
    """What is trained, and on what."""

    base: str = _option(
        "circles", "the model to control: bundled, a folder in diffusers' layout, an original file, a hub id"
    )
    tokenizer: str | None = _option(None, "a tokenizer's folder, where base is a file; null: CLIP's")
    controlnet: str | None = _option(
        None, "a ControlNet to go on from: folder, file or hub id; null: a copy of an encoder"
    )
    from_pretrained_unet: str | None = _option(
        None, "UNet whose encoder the ControlNet copies: diffusers folder, original file or hub id; null: the base's"
    )
    hint_channels: int = _option(3, "channels of the control image: 1 grey, 3 RGB, 4 RGBA")
    hint_widths: tuple[int, ...] = _option(
        (16, 32, 96, 256), "widths of the layers that embed the control image; n of them shrink it 2^(n-1) times"
    )
    only_mid_control: bool = _option(False, "control the UNet's middle block alone, not its skip connections")
    sd_locked: bool = _option(True, "leave the base as it is; false also trains the UNet's decoder")
    use_checkpoint: bool = _option(False, "recompute activations in the backward pass: less memory, more time")
    use_flash_attention: bool = _option(True, "torch's fused attention; false materialises the scores")
    channels_last: bool = _option(False, "keep convolutions' tensors in NHWC memory order")
    inductor: bool = _option(False, "compile UNet and ControlNet with torch.compile")
    prediction_type: str | None = _option(
        None, "what the model predicts, epsilon or v_prediction; null: as the base's scheduler says"
    )


@dataclass(frozen=True)
class DataOptions:
    """Where the pictures come from and how they are read."""

    format: str = _option("fill50k", "fill50k (prompt.json, source/, target/) or webdataset (tar shards)")
    path: str = _option(
        "", "fill50k's folder, or shards with braces or a star, several joined by ::, local, http://... or pipe:..."
    )
    control_key: str | None = _option(
        None, "names the control image in a sample: prompt.json's field (source), or a shard's extension (png)"
    )
    image_key: str | None = _option(None, "names the picture to learn: field (target) or extension (jpg)")
    prompt_key: str | None = _option(None, "names the prompt: field (prompt) or extension (txt)")
    annotator: str | None = _option(None, "make control images from the pictures themselves: canny; null: read them")
    height: int = _option(512, "pixels; pictures are scaled to cover height x width and cropped at the middle")
    width: int = _option(512, "pixels")
    proportion_empty_prompts: float = _option(0.0, "share of prompts that are replaced by the empty one, 0 to 1")
    shuffle_buffer: int = _option(1000, "samples of a shard stream among which the next is drawn; 1: as stored")
    workers: int = _option(0, "processes that read data, per training process")
    max_bad_samples: int = _option(100, "unreadable samples that are skipped before the run stops")
    held_out: int = _option(0, "samples kept for the held-out loss: fill50k's last ones, or held_out_path's first")
    held_out_path: str | None = _option(None, "a set of its own for the held-out loss, of the same format")
    cache: str | None = _option(None, "folder for latents and text states, computed once (fill50k only)")
    generate_circles: int = _option(0, "where path holds no set yet, write one of so many circles")

    @property
    def keys(self) -> tuple[str, str, str]:
        """The names of control image, picture and prompt in a sample."""
        names = (self.control_key, self.image_key, self.prompt_key)
        defaults = _DEFAULT_KEYS[self.format]
        return tuple(d if n is None else n for n, d in zip(names, defaults, strict=True))  # type: ignore[return-value]


@dataclass(frozen=True)
class OptimOptions:
    """How weights follow from gradients."""

    learning_rate: float = _option(1e-5, "at the schedule's top")
    beta1: float = _option(0.9, "AdamW")
    beta2: float = _option(0.999, "AdamW")
    epsilon: float = _option(1e-8, "AdamW")
    weight_decay: float = _option(1e-2, "AdamW")
    use_8bit_adam: bool = _option(False, "AdamW with 8-bit state, from bitsandbytes")
    max_grad_norm: float = _option(1.0, "clip the gradients' norm; 0: do not")
    lr_scheduler: str = _option("constant", f"one of {', '.join(LR_SCHEDULES)}")
    lr_warmup_steps: int = _option(0, "steps from zero to the learning rate, where the schedule has a warm-up")
    lr_num_cycles: int = _option(1, "restarts of cosine_with_restarts")
    lr_power: float = _option(1.0, "exponent of polynomial")
    scale_lr: bool = _option(False, "multiply the learning rate by the batch over all processes and accumulations")
    min_snr_gamma: float | None = _option(None, "Min-SNR weighting's gamma (arXiv 2303.09556; 5 there); null: none")
    ema_decay: float = _option(0.0, "average the weights, and keep the average as result; 0: do not")


@dataclass(frozen=True)
class RunOptions:
    """How long, how exact, and what is kept."""

    max_steps: int | None = _option(None, "optimizer steps; null: epochs says")
    epochs: int | None = _option(None, "times each sample is seen, where max_steps is null (fill50k only)")
    batch_size: int = _option(4, "samples a process takes at once")
    gradient_accumulation_steps: int = _option(1, "batches a process adds up for one optimizer step")
    precision: str = _option("32", "32, bf16 or fp16: mixed precision, trained weights stay float32")
    allow_tf32: bool = _option(False, "TensorFloat-32 products on NVIDIA GPUs since Ampere")
    seed: int = _option(0, "of everything random: same seed, same run")
    checkpoint_every: int = _option(500, "steps between checkpoints")
    checkpoints_limit: int = _option(3, "checkpoints kept; older ones are deleted")
    resume: bool = _option(True, "go on from the newest checkpoint below out, where there is one")


@dataclass(frozen=True)
class LogOptions:
    """What one can look at meanwhile."""

    every: int = _option(50, "steps between lines of loss, rate, speed and memory")
    image_every: int = _option(500, "steps between grids of control image, generation, target, prompt; 0: none")
    images: int = _option(4, "rows of a grid")
    image_steps: int = _option(20, "denoising steps of a generation")
    guidance_scale: float = _option(7.5, "of a generation")
    held_out_every: int = _option(500, "steps between held-out losses")
    tensorboard: bool = _option(True, "write out/logs for TensorBoard")


@dataclass(frozen=True)
class TrainConfig:
    """One run, resolved: printed before the work and kept as `config.yaml` beside the result."""

    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    trainer: RunOptions = field(default_factory=RunOptions)
    log: LogOptions = field(default_factory=LogOptions)
    out: str = _option("runs/controlnet", "folder for checkpoints, logs and the result")

    def __post_init__(self) -> None:
        check_one_of("trainer.precision", self.trainer.precision, PRECISIONS)
        check_one_of("data.format", self.data.format, FORMATS)
        check_one_of("optim.lr_scheduler", self.optim.lr_scheduler, LR_SCHEDULES)
        check_one_of("model.prediction_type", self.model.prediction_type, (None, *PREDICTION_TYPES))
        check_one_of("data.annotator", self.data.annotator, (None, "canny"))
        check_one_of("model.hint_channels", self.model.hint_channels, (1, 3, 4))
        for name in ("trainer.batch_size", "trainer.gradient_accumulation_steps", "trainer.checkpoint_every"):
            _at_least(name, self.get(name), 1)
        for name in ("trainer.checkpoints_limit", "log.every", "log.images", "log.image_steps", "log.held_out_every"):
            _at_least(name, self.get(name), 1)
        for name in ("data.workers", "data.max_bad_samples", "data.held_out", "log.image_every", "trainer.seed"):
            _at_least(name, self.get(name), 0)
        for name in ("data.proportion_empty_prompts", "optim.ema_decay"):
            if not 0 <= self.get(name) <= 1:
                raise UserError(name, str(self.get(name)), "0 to 1", "choose another number")
        for name in ("data.height", "data.width"):
            if self.get(name) < 8 or self.get(name) % 8:
                raise UserError(name, str(self.get(name)), "a positive multiple of 8", "choose another size")
        if not self.data.path:
            raise UserError("data.path", "nothing", "fill50k's folder or shards", "set data.path")
        if (self.trainer.max_steps is None) == (self.trainer.epochs is None):
            got = f"max_steps {self.trainer.max_steps} and epochs {self.trainer.epochs}"
            raise UserError("trainer", got, "one of the two", "set max_steps or epochs")
        if self.data.format == "webdataset":
            for name in ("trainer.epochs", "data.cache"):
                if self.get(name) is not None:
                    wanted = "a set whose length is known, in fill50k's format"
                    raise UserError(name, f"{self.get(name)} with webdataset", wanted, f"set {name} to null")

    def get(self, name: str) -> Any:
        """The value of `section.option` or of `option`."""
        value: Any = self
        for part in name.split("."):
            value = getattr(value, part)
        return value

    def to_yaml(self) -> str:
        """Return the configuration as YAML, which `load_config` reads again."""
        return yaml.safe_dump(_plain(dataclasses.asdict(self)), sort_keys=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(name, str(value), f"{least} or more", "choose another number")
