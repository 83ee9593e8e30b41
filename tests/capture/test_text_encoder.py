import itertools

import pytest
import torch
from diffusers import StableDiffusionControlNetPipeline
from transformers import CLIPTextConfig, CLIPTextModel

from mlc_controlnet.capture.text_encoder import TextEncoder
from mlc_controlnet.train.circles.tokenizer import train_tokenizer

LAYERS, TOKENS, WIDTH = 4, 16, 32


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionControlNetPipeline:
    """Of a text encoder alone, whose layers all change the context much."""
    tokenizer = train_tokenizer(["gold circle with navy background"], tmp_path_factory.mktemp("tokenizer"))
    tokenizer.model_max_length = TOKENS
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    text_encoder = CLIPTextModel(config).eval()
    for parameter in text_encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    # diffusers looks for the final norm where transformers before 5 had it.
    object.__setattr__(text_encoder, "text_model", text_encoder)
    made = object.__new__(StableDiffusionControlNetPipeline)  # its own constructor wants a VAE
    made.register_modules(text_encoder=text_encoder, tokenizer=tokenizer, unet=None)
    return made


@torch.no_grad()
@pytest.mark.parametrize("clip_skip", [None, 0, 1, LAYERS - 1])
def test_gates_of_zero_skip_the_last_layers_as_diffusers_does(
    pipeline: StableDiffusionControlNetPipeline, clip_skip: int | None
) -> None:
    prompt = "gold circle"
    expected, _ = pipeline.encode_prompt(prompt, torch.device("cpu"), 1, False, clip_skip=clip_skip)
    ids = pipeline.tokenizer(prompt, padding="max_length", max_length=TOKENS, return_tensors="pt").input_ids
    gates = (torch.arange(LAYERS) < LAYERS - (clip_skip or 0)).float()
    context = TextEncoder(pipeline.text_encoder)(ids.to(torch.int32), gates)
    torch.testing.assert_close(context, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_skipped_layer_changes_the_context(pipeline: StableDiffusionControlNetPipeline) -> None:
    ids, gates = torch.arange(TOKENS, dtype=torch.int32)[None], torch.ones(LAYERS)
    contexts = []
    for layer in reversed(range(LAYERS)):
        contexts.append(TextEncoder(pipeline.text_encoder)(ids, gates))
        gates[layer] = 0
    assert all((one - next_one).abs().mean() > 0.02 for one, next_one in itertools.pairwise(contexts))
