"""The training step of diffusers' examples/controlnet/train_controlnet.py, to compare ours with.

It follows the example of diffusers 0.42 in all that matters for time: each step computes latents and text states, AdamW
has torch's defaults, and accelerate clips the gradients. Reading data is measured on neither side.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import ControlNetModel, DDPMScheduler

from mlc_controlnet.train.base import Base
from mlc_controlnet.train.data.samples import Batch


def make_peer_step(
    base: Base, controlnet: ControlNetModel, batch: Batch, accelerator: Accelerator, dtype: torch.dtype
) -> Callable[[], None]:
    """Return a function that trains `controlnet` on `batch` for one step. The frozen parts get `dtype`."""
    device = accelerator.device
    noise_scheduler = DDPMScheduler.from_config(base.scheduler.config)
    controlnet.train()
    optimizer = torch.optim.AdamW(controlnet.parameters(), lr=1e-5, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    model, optimizer, schedule = accelerator.prepare(controlnet, optimizer, schedule)
    for part in (base.vae, base.unet, base.text_encoder):
        torch.nn.Module.to(part, device, dtype)
    ids = base.tokenizer(
        batch.prompts,
        max_length=base.tokenizer.model_max_length,
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    ).input_ids.to(device)
    pixels, control = batch.pixels.to(device), batch.control.to(device)

    def step() -> None:
        latents = base.vae.encode(pixels.to(dtype)).latent_dist.sample() * base.vae.config.scaling_factor
        noise = torch.randn_like(latents)
        t = torch.randint(0, noise_scheduler.config.num_train_timesteps, (latents.shape[0],), device=device)
        x_t = noise_scheduler.add_noise(latents, noise, t)
        context = base.text_encoder(ids)[0]
        down, mid = model(x_t, t, encoder_hidden_states=context, controlnet_cond=control.to(dtype), return_dict=False)
        predicted = base.unet(
            x_t,
            t,
            encoder_hidden_states=context,
            down_block_additional_residuals=[residual.to(dtype) for residual in down],
            mid_block_additional_residual=mid.to(dtype),
        ).sample
        predicts_v = noise_scheduler.config.prediction_type == "v_prediction"
        target = noise_scheduler.get_velocity(latents, noise, t) if predicts_v else noise
        loss = F.mse_loss(predicted.float(), target.float(), reduction="mean")
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(controlnet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        loss.detach().item()  # the example logs every step

    return step
