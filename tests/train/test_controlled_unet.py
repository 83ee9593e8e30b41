"""Each option of the model changes what it says, and nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, UNet2DConditionModel

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.base import Base, load_base, start_controlnet
from mlc_controlnet.train.config import ModelOptions, TrainConfig
from mlc_controlnet.train.config_file import from_tree
from mlc_controlnet.train.controlled_unet import ControlledUNet
from mlc_controlnet.train.trainer import train
from mlc_controlnet.train.upsampling import repeat_pixels
from tests.train.conftest import same_weights, tiny_tree, weights_below

MakeConfig = Callable[..., TrainConfig]
WIDTHS = (8, 8)


def quiet(line: str) -> None:
    pass


@pytest.fixture
def base(tiny_base: Path) -> Base:
    return load_base(tiny_base)


@pytest.fixture(scope="module")
def plain_run(tiny_base: Path, tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The ControlNet of a run whose options are all as they are by default; to be read only."""
    out = tmp_path_factory.mktemp("plain")
    return train(from_tree(tiny_tree(tiny_base, tiny_set, out=str(out))), quiet)


def build(base: Base, **options) -> ControlledUNet:
    """A ControlNet whose zero convolutions are not zero, so that it steers."""
    settings = ModelOptions(hint_widths=WIDTHS, **options)
    torch.manual_seed(0)
    controlnet = start_controlnet(base, settings)
    for block in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
        torch.nn.init.normal_(block.weight, std=0.3)
    return ControlledUNet(controlnet, base.unet, settings)


def inputs(hint_channels: int = 3) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn((2, 4, 12, 16), generator=generator),
        torch.tensor([3, 700]),
        torch.randn((2, 77, 16), generator=generator),
        torch.rand((2, hint_channels, 24, 32), generator=generator),
    )


def gradients(model: ControlledUNet) -> dict[str, torch.Tensor]:
    model(*inputs()).square().mean().backward()
    return {name: p.grad.clone() for name, p in model.trainable() if p.grad is not None}


def test_a_locked_base_learns_nothing_and_an_unlocked_one_its_decoder(base: Base) -> None:
    locked = {name.split(".")[0] for name, _ in build(base).trainable()}
    assert locked == {"controlnet"}
    unlocked = {".".join(name.split(".")[:2]) for name, _ in build(base, sd_locked=False).trainable()}
    assert {name for name in unlocked if name.startswith("unet")} == {
        "unet.up_blocks",
        "unet.conv_norm_out",
        "unet.conv_out",
    }


def test_an_unlocked_run_leaves_the_whole_model_beside_the_controlnet(make_config: MakeConfig, tiny_base: Path) -> None:
    config = make_config(model__sd_locked=False)
    lines: list[str] = []
    train(config, lines.append)
    folders = f"--model {config.out}/model --controlnet {config.out}/controlnet"
    assert lines[-1].endswith(f"mlc_controlnet build --target webgpu {folders}")
    unet = UNet2DConditionModel.from_pretrained(Path(config.out) / "model" / "unet")
    before = UNet2DConditionModel.from_pretrained(tiny_base / "unet")
    assert not torch.equal(unet.conv_out.weight, before.conv_out.weight)
    assert torch.equal(unet.conv_in.weight, before.conv_in.weight)


def test_mid_control_leaves_the_skip_connections_alone(base: Base) -> None:
    both, mid = build(base), build(base, only_mid_control=True)
    assert not torch.equal(both(*inputs()), mid(*inputs()))
    down, residual = mid.controlnet(*inputs()[:3], controlnet_cond=inputs()[3], return_dict=False)
    assert residual.any() and not any(r.any() for r in down)  # whoever runs the result gets what was trained
    assert "controlnet.controlnet_down_blocks.0.weight" not in dict(mid.trainable())
    mid(*inputs()).square().mean().backward()
    assert all(p.grad is not None for _, p in mid.trainable())  # else data parallel runs would wait for ever


def test_checkpointing_keeps_every_gradient_and_computes_forward_twice(base: Base) -> None:
    plain, again = build(base), build(base, use_checkpoint=True)
    calls = []
    again.controlnet.down_blocks[0].resnets[0].register_forward_pre_hook(lambda *arguments: calls.append(1))
    ours, theirs = gradients(again), gradients(plain)
    assert len(calls) == 2
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)


def test_flash_attention_equals_the_math_path(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = F.scaled_dot_product_attention

    def counted(*arguments, **options):
        calls.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    math = gradients(build(base, use_flash_attention=False))
    assert not calls
    flash = gradients(build(base))
    assert calls
    for name, gradient in math.items():
        torch.testing.assert_close(flash[name], gradient, rtol=1e-3, atol=1e-6)


def test_channels_last_changes_the_memory_order_and_not_the_numbers(base: Base) -> None:
    plain = gradients(build(base))
    last = build(base, channels_last=True)
    weight = last.controlnet.down_blocks[0].resnets[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    ours = gradients(last)
    for name, gradient in plain.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-6)


def test_inductor_compiles_both_networks(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(ControlNetModel, "compile", lambda self: compiled.append("controlnet"))
    monkeypatch.setattr(UNet2DConditionModel, "compile", lambda self: compiled.append("unet"))
    build(base)
    assert compiled == []
    build(base, inductor=True)
    assert compiled == ["controlnet", "unet"]


@pytest.mark.integration
def test_a_compiled_up_block_lets_gradients_through_its_upsampling(base: Base) -> None:
    """With diffusers' own upsampling every gradient that passes through it is wrong by its whole norm, see
    `upsampling`.
    """

    def gradients_of(block: torch.nn.Module) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        shapes = ((2, 16, 6, 8), (2, 16, 6, 8), (2, 8, 6, 8), (2, 32))
        hidden, last, first, temb = (torch.randn(s, generator=generator).requires_grad_() for s in shapes)
        block(hidden, (first, last), temb).square().mean().backward()
        return [x.grad for x in (hidden, last, first, temb)]

    block = base.unet.up_blocks[0]
    assert block.upsamplers is not None
    expected = gradients_of(block)
    repeat_pixels(base.unet)
    block.compile()
    for got, wanted in zip(gradients_of(block), expected, strict=True):
        assert (got - wanted).norm() <= 1e-4 * wanted.norm()


@pytest.mark.slow
def test_inductor_computes_the_gradients_of_eager(base: Base) -> None:
    """The whole of both networks. The test of an up block guards what has been seen to go wrong."""
    eager, compiled = gradients(build(base)), gradients(build(base, inductor=True))
    assert eager.keys() == compiled.keys()
    for name, gradient in eager.items():
        assert (compiled[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


def test_the_controlnet_starts_from_another_unets_encoder(base: Base, tiny_base: Path, tmp_path: Path) -> None:
    other = UNet2DConditionModel.from_pretrained(tiny_base / "unet")
    torch.nn.init.constant_(other.conv_in.weight, 0.25)
    other.save_pretrained(tmp_path / "unet")
    assert not (start_controlnet(base, ModelOptions(hint_widths=WIDTHS)).conv_in.weight == 0.25).all()
    for path in (tmp_path, tmp_path / "unet"):
        options = ModelOptions(hint_widths=WIDTHS, from_pretrained_unet=str(path))
        assert (start_controlnet(base, options).conv_in.weight == 0.25).all()


def test_a_run_goes_on_from_a_controlnet(make_config: MakeConfig, tmp_path: Path) -> None:
    first = train(make_config(optim__learning_rate=1e-2), quiet)
    config = make_config(out=str(tmp_path / "b"), model__controlnet=str(first), optim__learning_rate=0.0)
    assert same_weights(first, train(config, quiet))


@pytest.mark.parametrize("channels", [1, 4])
def test_control_images_have_as_many_channels_as_asked_for(make_config: MakeConfig, channels: int) -> None:
    config = make_config(model__hint_channels=channels, log__image_every=4, log__image_steps=1, log__images=1)
    lines: list[str] = []
    folder = train(config, lines.append)
    assert any(line.startswith("notice: ") and "a build takes only three" in line for line in lines)
    assert weights_below(folder)["controlnet_cond_embedding.conv_in.weight"].shape[1] == channels


def test_a_controlnet_for_other_channels_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    grey = train(make_config(model__hint_channels=1), quiet)
    with pytest.raises(UserError, match=r"model\.hint_channels: got 3 with a ControlNet for 1 channels"):
        train(make_config(out=str(tmp_path / "b"), model__controlnet=str(grey)), quiet)


def test_layers_that_shrink_the_control_image_too_much_are_refused(make_config: MakeConfig) -> None:
    with pytest.raises(
        UserError, match=r"model\.hint_widths: got 3 widths, wanted 2: the VAE shrinks pictures 2 times"
    ):
        train(make_config(model__hint_widths=[8, 8, 8]), quiet)


def test_a_controlnet_of_another_family_is_refused(make_config: MakeConfig, circles_model: Path) -> None:
    with pytest.raises(UserError, match="block_out_channels"):
        train(make_config(model__controlnet=str(circles_model / "controlnet")), quiet)


def test_brain_floats_compute_in_half_and_train_in_whole_precision(make_config: MakeConfig) -> None:
    from mlc_controlnet.train.objective import Objective

    seen = {}
    real = Objective.losses

    def losses(self, model, batch, held_out=False):
        seen["frozen"] = self.base.unet.conv_in.weight.dtype
        return real(self, model, batch, held_out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Objective, "losses", losses)
        folder = train(make_config(trainer__precision="bf16", log__image_every=4, log__image_steps=1), quiet)
    assert seen["frozen"] == torch.bfloat16
    assert all(tensor.dtype == torch.float32 for tensor in weights_below(folder).values())


@pytest.mark.parametrize(
    ("options", "moves"),
    [
        ({"optim__min_snr_gamma": 5.0}, True),
        ({"model__prediction_type": "v_prediction"}, True),
        ({"data__proportion_empty_prompts": 1.0}, True),
        ({"optim__max_grad_norm": 1e-3, "optim__epsilon": 1e-2}, True),
        ({"optim__lr_scheduler": "cosine"}, True),
        ({"optim__lr_scheduler": "linear", "optim__lr_warmup_steps": 2}, True),
        ({"optim__ema_decay": 0.9}, True),
        ({"optim__scale_lr": True}, True),
        ({"optim__weight_decay": 0.5}, True),
        ({"data__annotator": "canny"}, True),
        ({"data__control_key": "target"}, True),
        ({"log__every": 1}, False),
        ({"trainer__checkpoint_every": 1}, False),
    ],
    ids=str,
)
def test_an_option_changes_the_result_or_leaves_it(
    make_config: MakeConfig, plain_run: Path, options: dict, moves: bool
) -> None:
    assert same_weights(plain_run, train(make_config(**options), quiet)) != moves
