import torch

from mlc_controlnet.train.circles import architecture
from mlc_controlnet.train.circles.controlnet import train_controlnet
from mlc_controlnet.train.circles.loop import one_cycle


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(2, 4, 16, 16), torch.randn(2, 77, architecture.TEXT_WIDTH), torch.rand(2, 3, 128, 128)


def test_an_untrained_controlnet_changes_nothing() -> None:
    """Its zero convolutions give zeros (arXiv 2302.05543, section 3.1)."""
    torch.manual_seed(0)
    controlnet = architecture.build_controlnet(architecture.build_unet())
    latents, context, control = batch()
    with torch.no_grad():
        down, mid = controlnet(latents, 500, context, controlnet_cond=control, return_dict=False)
    assert all(not residual.any() for residual in (*down, mid))


def test_the_base_stays_locked_and_the_controlnet_learns() -> None:
    torch.manual_seed(0)
    unet = architecture.build_unet()
    controlnet = architecture.build_controlnet(unet)
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    train_controlnet(controlnet, unet, architecture.build_scheduler(), batch, one_cycle(3, 1e-3), lambda line: None)
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())
    assert controlnet.controlnet_mid_block.weight.any()
    assert not any(p.requires_grad for p in unet.parameters())
