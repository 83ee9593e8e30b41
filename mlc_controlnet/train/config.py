"""The configuration of a training run: every option with its default and its meaning.

`python -m mlc_controlnet train options` prints this table. An option has NeMo's name if NeMo has the option.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import yaml

from mlc_controlnet.errors import UserError, check_one_of
from mlc_controlnet.images.annotators import ANNOTATORS

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
LARGEST_SEED = 2**63 - 1  # of torch's generators
# The least number that an option takes, apart from those that are checked one by one.
_LEAST = {
    1: (
        "optim.lr_num_cycles", "trainer.max_steps", "trainer.epochs", "trainer.batch_size",
        "trainer.gradient_accumulation_steps", "trainer.checkpoint_every", "trainer.checkpoints_limit", "log.every",
        "log.images", "log.image_steps", "log.held_out_every",
    ),
    0: (
        "data.workers", "data.max_bad_samples", "data.held_out", "optim.learning_rate", "optim.epsilon",
        "optim.weight_decay", "optim.max_grad_norm", "optim.lr_warmup_steps", "optim.lr_power", "trainer.seed",
        "log.image_every",
    ),
}  # fmt: skip
_DEFAULT_KEYS = {"fill50k": ("source", "target", "prompt"), "webdataset": ("png", "jpg", "txt")}


def _option(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True)
class ModelOptions:
    """The ControlNet to train, and its base model."""

    base: str = _option(
        "circles", "the base model: a folder in diffusers' layout, an original file, a bundled model or a hub id"
    )
    tokenizer: str | None = _option(None, "folder with the tokenizer, if base is a file; null: CLIP's")
    controlnet: str | None = _option(
        None, "ControlNet to start from: a folder, a file or a hub id; null: a copy of an encoder"
    )
    from_pretrained_unet: str | None = _option(
        None,
        "UNet whose encoder the ControlNet copies: a folder, a file or a hub id; null: the base's",
    )
    hint_channels: int = _option(3, "channels of the control image: 1 grey, 3 RGB, 4 RGBA")
    hint_widths: tuple[int, ...] = _option(
        (16, 32, 96, 256), "widths of the layers that embed the control image; n of them shrink it 2^(n-1) times"
    )
    only_mid_control: bool = _option(False, "control only the UNet's middle block, not its skip connections")
    sd_locked: bool = _option(True, "do not change the base model; false also trains the UNet's decoder")
    use_checkpoint: bool = _option(False, "recompute activations in the backward pass: less memory, more time")
    use_flash_attention: bool = _option(True, "torch's fused attention; false stores the attention scores in memory")
    channels_last: bool = _option(False, "store the tensors of convolutions in NHWC memory order")
    inductor: bool = _option(False, "compile the UNet and the ControlNet with torch.compile")
    prediction_type: str | None = _option(
        None, "what the model predicts, epsilon or v_prediction; null: what the base's scheduler states"
    )


@dataclass(frozen=True)
class DataOptions:
    """The source of the pictures, and how they are read."""

    format: str = _option("fill50k", "fill50k (prompt.json, source/, target/) or webdataset (tar shards)")
    path: str = _option(
        "", "folder of a fill50k set, or a pattern of shards: local, http://... or pipe:...; :: joins several"
    )
    control_key: str | None = _option(
        None,
        "name of the control image in a sample; null: the field source or the extension png",
    )
    image_key: str | None = _option(None, "name of the picture to learn; null: the field target or the extension jpg")
    prompt_key: str | None = _option(None, "name of the prompt; null: the field prompt or the extension txt")
    annotator: str | None = _option(None, "make the control images from the pictures, such as canny; null: read them")
    height: int = _option(512, "pixels; pictures are scaled to cover height x width and cropped around the center")
    width: int = _option(512, "pixels")
    proportion_empty_prompts: float = _option(0.0, "share of prompts that are replaced by the empty prompt, 0 to 1")
    shuffle_buffer: int = _option(1000, "samples from which a stream of shards draws the next one; 1: stored order")
    workers: int = _option(0, "processes that read data, per training process")
    max_bad_samples: int = _option(100, "number of unreadable samples that are skipped before the run stops")
    held_out: int = _option(0, "samples for the held-out loss: fill50k's last ones, or the first of held_out_path")
    held_out_path: str | None = _option(None, "another set for the held-out loss, in the same format")
    cache: str | None = _option(None, "folder for latents and text states, computed once (fill50k only)")
    generate_circles: int = _option(0, "number of circles to generate if path contains no set; 0: none")

    @property
    def keys(self) -> tuple[str, str, str]:
        """The names of control image, picture and prompt in a sample."""
        names = (self.control_key, self.image_key, self.prompt_key)
        defaults = _DEFAULT_KEYS[self.format]
        return tuple(d if n is None else n for n, d in zip(names, defaults, strict=True))  # type: ignore[return-value]


@dataclass(frozen=True)
class OptimOptions:
    """The settings of the optimizer."""

    learning_rate: float = _option(1e-5, "the highest learning rate of the schedule")
    beta1: float = _option(0.9, "AdamW's decay of the first moment")
    beta2: float = _option(0.999, "AdamW's decay of the second moment")
    epsilon: float = _option(1e-8, "AdamW's epsilon")
    weight_decay: float = _option(1e-2, "AdamW's weight decay")
    use_8bit_adam: bool = _option(False, "AdamW with 8-bit state, from bitsandbytes")
    max_grad_norm: float = _option(1.0, "largest norm of the gradients, to which they are clipped; 0: no clipping")
    lr_scheduler: str = _option("constant", f"one of {', '.join(LR_SCHEDULES)}")
    lr_warmup_steps: int = _option(0, "steps of the warm-up, if the schedule has one")
    lr_num_cycles: int = _option(1, "cycles of cosine_with_restarts")
    lr_power: float = _option(1.0, "exponent of polynomial")
    scale_lr: bool = _option(False, "multiply the learning rate by the number of samples per step")
    min_snr_gamma: float | None = _option(None, "gamma of Min-SNR weighting (arXiv 2303.09556: 5); null: none")
    ema_decay: float = _option(0.0, "decay of the weights' average, which becomes the result; 0: no average")


@dataclass(frozen=True)
class RunOptions:
    """The length of the run, its precision, and its checkpoints."""

    max_steps: int | None = _option(None, "optimizer steps; null: epochs decides")
    epochs: int | None = _option(None, "number of times each sample is seen, if max_steps is null (fill50k only)")
    batch_size: int = _option(4, "samples per process and batch")
    gradient_accumulation_steps: int = _option(1, "batches per process and optimizer step")
    precision: str = _option("32", "32, bf16 or fp16; mixed precision keeps the trained weights in float32")
    allow_tf32: bool = _option(False, "use TensorFloat-32 for matrix products on NVIDIA GPUs since Ampere")
    seed: int = _option(0, "seed of everything random: the same seed gives the same run")
    checkpoint_every: int = _option(500, "steps between checkpoints")
    checkpoints_limit: int = _option(3, "number of checkpoints to keep; older ones are deleted")
    resume: bool = _option(True, "resume from the newest checkpoint below out, if there is one")


@dataclass(frozen=True)
class LogOptions:
    """The reports of a run, and how often it writes them."""

    every: int = _option(50, "steps between lines of loss, rate, speed and memory")
    image_every: int = _option(500, "steps between grids of control image, generation, target and prompt; 0: no grids")
    images: int = _option(4, "rows per grid")
    image_steps: int = _option(20, "denoising steps per generation")
    guidance_scale: float = _option(7.5, "guidance scale of the generations; 1: no guidance")
    held_out_every: int = _option(500, "steps between held-out losses")
    tensorboard: bool = _option(True, "write logs for TensorBoard to out/logs")


@dataclass(frozen=True)
class TrainConfig:
    """One run. Its configuration is printed before the work starts and saved as `config.yaml` in `out`."""

    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    trainer: RunOptions = field(default_factory=RunOptions)
    log: LogOptions = field(default_factory=LogOptions)
    out: str = _option("runs/controlnet", "folder for checkpoints, logs and the result")

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_numbers()
        self._check_set_and_length()

    def _check_choices(self) -> None:
        check_one_of("trainer.precision", self.trainer.precision, PRECISIONS)
        check_one_of("data.format", self.data.format, FORMATS)
        check_one_of("optim.lr_scheduler", self.optim.lr_scheduler, LR_SCHEDULES)
        check_one_of("model.prediction_type", self.model.prediction_type, (None, *PREDICTION_TYPES))
        check_one_of("data.annotator", self.data.annotator, (None, *ANNOTATORS))
        check_one_of("model.hint_channels", self.model.hint_channels, (1, 3, 4))

    def _check_numbers(self) -> None:
        for least, names in _LEAST.items():
            for name in names:
                if self.get(name) is not None and self.get(name) < least:
                    raise UserError(name, str(self.get(name)), f"{least} or more", "choose another number")
        if not self.model.hint_widths or min(self.model.hint_widths) < 1:
            got = str(list(self.model.hint_widths))
            raise UserError("model.hint_widths", got, "1 or more for each layer", "leave it out for ControlNet's own")
        if self.trainer.seed > LARGEST_SEED:
            raise UserError("trainer.seed", str(self.trainer.seed), f"at most {LARGEST_SEED}", "choose another number")
        for name in ("optim.beta1", "optim.beta2"):
            if not 0 <= self.get(name) < 1:
                raise UserError(name, str(self.get(name)), "0 or more, and less than 1", "choose another number")
        if self.optim.min_snr_gamma is not None and self.optim.min_snr_gamma <= 0:
            raise UserError("optim.min_snr_gamma", str(self.optim.min_snr_gamma), "more than 0, or null", "5 is usual")
        for name in ("data.proportion_empty_prompts", "optim.ema_decay"):
            if not 0 <= self.get(name) <= 1:
                raise UserError(name, str(self.get(name)), "0 to 1", "choose another number")
        for name in ("data.height", "data.width"):
            if self.get(name) < 8 or self.get(name) % 8:
                raise UserError(name, str(self.get(name)), "a positive multiple of 8", "choose another size")

    def _check_set_and_length(self) -> None:
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
        """Return the value of `section.option` or of `option`."""
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
