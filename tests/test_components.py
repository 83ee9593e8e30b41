import dataclasses

from mlc_controlnet.components import (
    COMPONENTS,
    COMPUTE,
    CONTROL_EMBEDDING,
    CONTROLNET,
    PREVIEW_DECODER,
    RESIDUAL_SUM,
    TEXT_ENCODER,
    UNET,
    ModelShape,
    TensorSpec,
    component_specs,
    function_specs,
)

DESCRIBED = (*COMPONENTS, PREVIEW_DECODER)
SD15 = ModelShape(
    height=512,
    width=768,
    tokens=77,
    text_width=768,
    latent_channels=4,
    sample_channels=4,
    unet_channels=(320, 640, 1280, 1280),
    layers_per_block=2,
)


def test_all_components_are_described() -> None:
    assert tuple(component_specs(SD15)) == DESCRIBED


def test_portrait_and_landscape_keep_height_first() -> None:
    assert SD15.latent == (1, 4, 64, 96)


def test_stable_diffusion_has_twelve_down_residuals_and_one_of_the_middle() -> None:
    residuals = SD15.residuals
    assert len(residuals) == 13
    assert residuals[0].shape == (1, 320, 64, 96)
    assert residuals[3].shape == (1, 320, 32, 48)
    assert residuals[-1] == TensorSpec("mid_residual", (1, 1280, 8, 12), COMPUTE)


def test_the_embedded_control_image_has_the_shape_of_the_finest_level() -> None:
    specs = component_specs(SD15)
    assert specs[CONTROL_EMBEDDING].outputs == (specs[CONTROLNET].inputs[3],)
    assert specs[CONTROL_EMBEDDING].outputs[0].shape == (1, 320, 64, 96)


def test_what_the_controlnet_gives_is_what_the_unet_takes() -> None:
    specs = component_specs(SD15)
    assert specs[UNET].inputs[3:] == specs[CONTROLNET].outputs == specs[RESIDUAL_SUM].outputs
    assert [tensor.shape for tensor in specs[RESIDUAL_SUM].inputs] == [r.shape for r in SD15.residuals] * 2


def test_every_residual_has_a_scale() -> None:
    assert component_specs(SD15)[CONTROLNET].inputs[-1].shape == (len(SD15.residuals),) == (13,)


def test_a_compute_tensor_takes_the_dtype_of_its_library() -> None:
    assert TensorSpec("context", (1, 77, 8), COMPUTE).resolved("float16").dtype == "float16"
    assert TensorSpec("sample", (1, 4, 8, 8), "float32").resolved("float16").dtype == "float32"


def test_another_size_adds_a_function_for_every_component_but_the_text_encoder() -> None:
    functions = function_specs([SD15, dataclasses.replace(SD15, height=768, width=512)])
    added = {name: spec.name for name, spec in functions.items() if name not in DESCRIBED}
    assert added == {f"{name}_512x768": name for name in DESCRIBED if name != TEXT_ENCODER}  # width before height
    assert functions["unet_512x768"].inputs[0].shape == (1, 4, 96, 64)


def test_longer_prompts_add_functions_for_those_that_read_them() -> None:
    functions = function_specs([SD15, dataclasses.replace(SD15, chunks=2)])
    assert set(functions) - set(DESCRIBED) == {"controlnet_768x512_2_chunks", "unet_768x512_2_chunks"}
    assert functions["unet_768x512_2_chunks"].inputs[2].shape == (1, 154, 768)
    assert functions[TEXT_ENCODER].inputs[0].shape == (1, 77)


def test_a_longer_prompt_of_another_size_shares_what_does_not_read_it() -> None:
    portrait = dataclasses.replace(SD15, height=768, width=512)
    functions = function_specs([SD15, portrait, dataclasses.replace(portrait, chunks=2)])
    assert "vae_decoder_512x768" in functions
    assert {name for name in functions if "2_chunks" in name} == {
        "controlnet_512x768_2_chunks",
        "unet_512x768_2_chunks",
    }


def test_with_tiles_only_a_smaller_picture_has_a_vae_of_its_own() -> None:
    larger, narrower = dataclasses.replace(SD15, height=1024), dataclasses.replace(SD15, height=1024, width=512)
    functions = function_specs([SD15, larger, narrower], tiles_vae=True)
    assert {name for name in functions if name.startswith("vae_")} == {
        "vae_decoder",
        "vae_encoder",
        "vae_decoder_512x1024",
        "vae_encoder_512x1024",
    }
    assert "unet_768x1024" in functions
