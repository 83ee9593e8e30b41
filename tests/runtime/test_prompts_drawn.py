"""Weights, several chunks and skipped layers in a compiled model: the picture is diffusers', given torch's contexts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionControlNetPipeline
from PIL import Image

from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.runtime.noise import standard_normal
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.conftest import ROOT
from tests.fixtures.quick_build import build_quickly
from tests.runtime.test_circles import MIN_PSNR_DB, psnr_db

pytestmark = pytest.mark.integration

SIDE, STEPS = 64, 4
Chunk = list[tuple[str, float]]


@pytest.fixture(scope="module")
def bundle(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle for prompts of two chunks."""
    out, records = tmp_path_factory.mktemp("prompts") / "bundle", ROOT / "tuning_db"
    return build_quickly(
        BuildConfig(str(random_model), "llvm", ("float32",), out, records, height=SIDE, width=SIDE, prompt_chunks=2)
    )


@pytest.fixture(scope="module")
def reference(random_model: Path) -> StableDiffusionControlNetPipeline:
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(random_model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def encode(reference: StableDiffusionControlNetPipeline, chunks: list[Chunk], clip_skip: int) -> torch.Tensor:
    """sd-webui's contexts: each token's row times its weight, scaled to the mean before, one chunk after another."""
    tokenizer, text_encoder = reference.tokenizer, reference.text_encoder
    contexts = []
    for chunk in chunks:
        ids, weights = [tokenizer.bos_token_id], [1.0]
        for text, weight in chunk:
            of_text = tokenizer(text, add_special_tokens=False).input_ids
            ids += of_text
            weights += [weight] * len(of_text)
        padding = tokenizer.model_max_length - len(ids)
        ids, weights = ids + [tokenizer.eos_token_id] * padding, weights + [1.0] * padding
        with torch.no_grad():
            hidden = text_encoder(torch.tensor([ids]), output_hidden_states=True).hidden_states
            z = text_encoder.final_layer_norm(hidden[-(clip_skip + 1)])
        weighted = z * torch.tensor(weights)[None, :, None]
        contexts.append(weighted * (z.mean() / weighted.mean()))
    return torch.cat(contexts, dim=1)


PROMPTS: dict[str, tuple[str, str, list[Chunk], list[Chunk], int]] = {
    "weights": (
        "(gold:3) circle with [navy] background",
        "red ((circle))",
        [[("gold", 3), (" circle with ", 1), ("navy", 1 / 1.1), (" background", 1)]],
        [[("red ", 1), ("circle", 1.21)]],
        0,
    ),
    "a skipped layer": ("gold (circle:0.5)", "", [[("gold ", 1), ("circle", 0.5)]], [[]], 1),
    "two chunks": (
        "gold circle BREAK with (navy background:1.3)",
        "red circle",
        [[("gold circle", 1)], [("with ", 1), ("navy background", 1.3)]],
        [[("red circle", 1)], []],
        0,
    ),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_weighted_prompt_draws_diffusers_picture(
    bundle: Bundle, reference: StableDiffusionControlNetPipeline, name: str
) -> None:
    prompt, negative_prompt, chunks, negative_chunks, clip_skip = PROMPTS[name]
    blocks = np.random.default_rng(1).integers(0, 256, (SIDE // 8, SIDE // 8, 3), np.uint8)
    control_image = Image.fromarray(blocks).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    latents = standard_normal((1, 4, SIDE // 8, SIDE // 8), seed=7)
    options = {"num_inference_steps": STEPS, "guidance_scale": 40.0}  # random weights hardly hear the prompt
    wanted = reference(
        prompt_embeds=encode(reference, chunks, clip_skip),
        negative_prompt_embeds=encode(reference, negative_chunks, clip_skip),
        image=control_image,
        latents=torch.from_numpy(latents),
        **options,
    ).images[0]
    pipeline = ControlNetPipeline.from_bundle(bundle)

    def draw(prompt: str, clip_skip: int) -> np.ndarray:
        options_of_ours = {"negative_prompt": negative_prompt, "latents": latents, "clip_skip": clip_skip}
        return np.asarray(pipeline(prompt, control_image, **options, **options_of_ours).images[0])

    assert np.asarray(wanted).std() > 10  # not a flat picture
    assert psnr_db(draw(prompt, clip_skip), np.asarray(wanted)) >= MIN_PSNR_DB
    assert psnr_db(draw("gold circle with navy background", 0), np.asarray(wanted)) < MIN_PSNR_DB
