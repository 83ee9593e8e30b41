"""A small model with every kind of layer whose weights are packed, captured and through phase clean."""

import torch
from torch import nn

from mlc_controlnet.capture import CapturedModel, Param, Quantizer, capture_module
from mlc_controlnet.passes.pipeline import clean
from mlc_controlnet.passes.quantize.find_weights import find_weights
from mlc_controlnet.passes.quantize.pack_weights import pack_weights

INPUTS = ((1, 32, 16, 16), (1, 256))


class Layers(nn.Module):
    """3x3 convolutions, plain and after upsampling, 1x1 convolutions, linear layers of many rows and of one, GEGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(32, 64, 3, padding=1)
        self.time = nn.Linear(256, 64)
        self.proj_in = nn.Conv2d(64, 64, 1)
        self.q, self.k = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
        self.geglu = nn.Linear(64, 256)
        self.back = nn.Linear(128, 64)
        self.up = nn.Conv2d(64, 32, 3, padding=1)
        self.last = nn.Conv2d(32, 4, 3, padding=1)
        for own in self.parameters():
            own.requires_grad_(requires_grad=False)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        x = self.first(x) + self.time(t)[:, :, None, None]
        b, c, h, w = x.shape
        tokens = self.proj_in(x).permute(0, 2, 3, 1).reshape(b, h * w, c)
        tokens = tokens + self.q(tokens) * self.k(tokens)
        value, gate = self.geglu(tokens).chunk(2, dim=-1)
        tokens = self.back(value * nn.functional.gelu(gate))
        x = tokens.reshape(b, h, w, c).permute(0, 3, 1, 2)
        return self.last(self.up(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")))


def layers() -> Layers:
    """With the same random weights for each call."""
    torch.manual_seed(0)
    return Layers().eval()


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {f"unet.{name}": tensor.half() for name, tensor in model.named_parameters()}


def inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(shape, generator=generator) for shape in INPUTS)


def captured_layers(dtype: str) -> CapturedModel:
    import tvm

    torch_dtype = {"float16": torch.float16, "float32": torch.float32}[dtype]
    function, names = capture_module(layers().to(torch_dtype), tuple(x.to(torch_dtype) for x in inputs()))
    tensors = [f"unet.{name}" for name in names]
    function = function.with_attrs({"global_symbol": "unet", "tensors": tensors})
    module = tvm.IRModule({tvm.ir.GlobalVar("unet"): function})
    return clean(CapturedModel(dtype, module, {"unet": tuple(map(Param.whole, tensors))}))


def packed_layers(method: str, bits: int, dtype: str) -> CapturedModel:
    """All weights that can be packed are."""
    captured = captured_layers(dtype)
    schemes = {param: place.scheme(method, bits) for param, place in find_weights(captured).items()}
    return pack_weights(captured, schemes, Quantizer())
