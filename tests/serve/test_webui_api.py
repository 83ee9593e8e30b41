"""The web UI's interface, asked by a client that others wrote: webuiapi."""

import threading

import pytest
import webuiapi
from PIL import Image

from tests.serve.conftest import open_picture, ring
from tests.serve.test_generate_api import until

SIZE = {"width": 24, "height": 16, "steps": 3}


@pytest.fixture
def client(service):
    host, port = service.address.removeprefix("http://").split(":")
    return webuiapi.WebUIApi(host=host, port=int(port), sampler="Euler a")


def unit(picture=None, **options):
    return webuiapi.ControlNetUnit(image=picture or open_picture(ring()), model="lines", **options)


def test_text_to_image_with_a_controlnet_is_what_our_own_interface_draws(client, service):
    drawn = client.txt2img(prompt="red", seed=7, cfg_scale=2, controlnet_units=[unit(weight=0.5)], **SIZE)
    own = service.generate(
        sampler="euler_a", num_inference_steps=3, guidance_scale=2.0, controlnet_conditioning_scale=0.5
    )
    assert drawn.image.tobytes() == open_picture(own.json()["images"][0]["image"]).convert("RGB").tobytes()
    assert len(drawn.images) == 2  # the picture, and what the ControlNet saw
    assert drawn.info["seed"] == 7
    assert drawn.info["infotexts"][0].startswith("red\nNegative prompt: \nSteps: 3, Sampler: Euler a")


def test_a_unit_that_is_switched_off_draws_without_a_controlnet(client):
    plain = client.txt2img(prompt="red", seed=7, **SIZE)
    off = client.txt2img(prompt="red", seed=7, controlnet_units=[unit(enabled=False)], **SIZE)
    on = client.txt2img(prompt="red", seed=7, controlnet_units=[unit()], **SIZE)
    assert len(plain.images) == 1
    assert plain.image.tobytes() == off.image.tobytes() != on.image.tobytes()


def test_a_batch_has_consecutive_seeds(client):
    drawn = client.txt2img(prompt="red", seed=7, batch_size=2, n_iter=2, **SIZE)
    assert drawn.info["all_seeds"] == [7, 8, 9, 10]
    assert len(drawn.images) == 4


def test_image_to_image_starts_from_the_picture(client):
    start = Image.new("RGB", (48, 16), "green")
    little = client.img2img(images=[start], prompt="red", seed=7, denoising_strength=0.0, **SIZE)
    much = client.img2img(images=[start], prompt="red", seed=7, denoising_strength=0.9, **SIZE)
    assert little.image.size == (24, 16)
    assert little.image.tobytes() != much.image.tobytes()


@pytest.mark.parametrize("only_masked", [False, True])
@pytest.mark.parametrize("inverted", [0, 1])
def test_inpainting_keeps_the_pixels_outside_of_the_mask(client, only_masked, inverted):
    start = Image.effect_noise((24, 16), 50).convert("RGB")
    mask = Image.new("L", (24, 16), 255 * inverted)
    mask.paste(255 * (1 - inverted), (0, 0, 12, 16))
    drawn = client.img2img(
        images=[start],
        mask_image=mask,
        mask_blur=0,
        inpainting_fill=1,
        inpainting_mask_invert=inverted,
        inpaint_full_res=only_masked,
        prompt="red",
        seed=7,
        **SIZE,
    )
    kept, painted = ((12, 0, 24, 16), (0, 0, 12, 16))
    assert drawn.image.crop(kept).tobytes() == start.crop(kept).tobytes()
    assert drawn.image.crop(painted).tobytes() != start.crop(painted).tobytes()


def test_each_masked_content_is_another_picture(client):
    start = Image.effect_noise((24, 16), 50).convert("RGB")
    mask = Image.new("L", (24, 16), 0)
    mask.paste(255, (0, 0, 12, 16))
    options = {"images": [start], "mask_image": mask, "mask_blur": 0, "prompt": "red", "seed": 7, **SIZE}
    drawn = {
        (fill, strength): client.img2img(inpainting_fill=fill, denoising_strength=strength, **options).image.tobytes()
        for fill in range(4)
        for strength in (0.5, 1.0)
    }
    assert len({drawn[fill, 0.5] for fill in range(4)}) == 4
    assert len({drawn[fill, 1.0] for fill in range(4)}) == 1, "a drawing of strength 1 starts from noise alone"
    with pytest.raises(RuntimeError, match="inpainting_fill"):
        client.img2img(inpainting_fill=4, **options)


def test_progress_is_told_and_an_interrupted_picture_is_what_there_is(patient):
    host, port = patient.address.removeprefix("http://").split(":")
    client = webuiapi.WebUIApi(host=host, port=int(port))
    assert client.get_progress()["state"]["job_count"] == 0
    results = []
    long = {**SIZE, "steps": 150, "batch_size": 1000}
    drawing = threading.Thread(target=lambda: results.append(client.txt2img(prompt="red", seed=7, **long)))
    drawing.start()
    until(lambda: client.get_progress()["current_image"] is not None)
    progress = client.get_progress()
    assert 0 < progress["progress"] < 1
    assert progress["state"]["sampling_steps"] == 150
    client.interrupt()
    drawing.join()
    assert 1 <= len(results[0].images) < 1000
    assert client.get_progress()["progress"] == 0


def test_an_interrupted_repainting_keeps_the_pixels_outside_of_the_mask(patient):
    """What the model has until then is pasted into the photo, as a finished part is."""
    host, port = patient.address.removeprefix("http://").split(":")
    client = webuiapi.WebUIApi(host=host, port=int(port))
    photo = Image.effect_noise((96, 64), 50).convert("RGB")
    mask = Image.new("L", photo.size)
    mask.paste(255, (0, 0, 48, 64))
    results = []
    options = {"mask_image": mask, "mask_blur": 0, "inpainting_fill": 1, "inpaint_full_res": True, "prompt": "red"}
    long = {**SIZE, "steps": 150, "batch_size": 1000}
    drawing = threading.Thread(target=lambda: results.append(client.img2img(images=[photo], **options, **long)))
    drawing.start()
    until(lambda: client.get_progress()["state"]["sampling_step"] > 0)
    client.interrupt()
    drawing.join()
    last = results[0].images[-1]
    assert last.size == photo.size
    kept, painted = (48, 0, 96, 64), (0, 0, 48, 64)
    assert last.crop(kept).tobytes() == photo.crop(kept).tobytes()
    assert last.crop(painted).tobytes() != photo.crop(painted).tobytes()


def test_lists_that_clients_ask_for(client):
    assert "Euler a" in client.util_get_sampler_names()
    assert "karras" in client.util_get_scheduler_names()
    (title,) = client.util_get_model_names()
    assert client.util_get_current_model() == title
    client.util_set_model("linear")
    assert client.controlnet_version() == 2
    assert client.controlnet_model_list() == ["lines"]
    assert "canny" in client.controlnet_module_list()
    assert client.get_latent_upscale_modes()[0]["name"] == "Latent"
    for empty in (client.get_sd_vae, client.get_loras, client.get_upscalers, client.get_face_restorers):
        assert empty() == []


def test_an_annotator_makes_the_control_image(client):
    found = client.controlnet_detect([open_picture(ring((64, 64)))], module="canny")
    edges = found.image
    assert edges.size == (64, 64)
    assert edges.convert("L").getextrema() == (0, 255)


def test_thresholds_of_a_unit_are_those_of_its_annotator(client):
    faint = Image.new("RGB", (24, 16))
    faint.paste((60, 60, 60), (8, 0, 16, 16))  # a gradient of 240
    few = {"module": "canny", "threshold_a": 250, "threshold_b": 255}
    usual = {"module": "canny", "threshold_a": -1, "threshold_b": -1}
    for options, brightest in ((few, 0), (usual, 255)):
        found = client.controlnet_detect([faint], **options).image
        drawn = client.txt2img(prompt="red", seed=7, controlnet_units=[unit(faint, **options)], **SIZE)
        assert [one.convert("L").getextrema()[1] for one in (found, drawn.images[1])] == [brightest, brightest]


def test_an_option_that_no_picture_can_have_is_refused_and_spoils_no_picture(client, service):
    answer = service.ask("POST", "/sdapi/v1/options", {"CLIP_stop_at_last_layers": "two"})
    assert (answer.status, "CLIP_stop_at_last_layers: got 'two'" in answer.json()["detail"]) == (422, True)
    assert client.get_options()["CLIP_stop_at_last_layers"] == 1
    client.txt2img(prompt="red", **SIZE)


def test_what_an_answer_repeats_of_a_request_is_json(service):
    """Python writes and reads numbers that JSON has not."""
    odd = {"prompt": "red", "steps": 1, "override_settings": {"eta_noise_seed_delta": float("nan")}}
    answer = service.ask("POST", "/sdapi/v1/txt2img", odd)
    assert (answer.status, len(answer.json()["images"])) == (200, 1)


UNIT = {"model": "lines", "image": ring()}
HUGE = {"width": 100_000, "height": 100_000}


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"sampler_name": "magic"}, "sampler: got 'magic'"),
        ({"steps": 1000}, "num inference steps: got 1000"),
        ({"width": 99}, "size: got 99x16"),
        ({"batch_size": 17}, "batch_size x n_iter: got 17"),
        ({"steps": "many"}, "body.steps"),
        ({"override_settings": {"sd_model_checkpoint": "none"}}, "model: got 'none'"),
        ({"tiling": True}, "tiling"),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"model": "lines"}]}}}, "ControlNet image: got none"),
        ({"alwayson_scripts": {"controlnet": {"args": [{"model": "x", "image": ring()}]}}}, "ControlNet model"),
        ({"alwayson_scripts": {"controlnet": {"args": [{"weight": "x", "image": ring()}]}}}, "weight"),
        ({"alwayson_scripts": {"controlnet": {"args": [True, "canny", "lines"]}}}, "alwayson_scripts.controlnet: got"),
        ({"alwayson_scripts": {"controlnet": {"args": UNIT}}}, "alwayson_scripts.controlnet: got"),
        ({"alwayson_scripts": {"controlnet": {"args": 5}}}, "alwayson_scripts.controlnet: got 5"),
        ({"alwayson_scripts": {"controlnet": 5}}, "alwayson_scripts.controlnet: got 5"),
        ({"alwayson_scripts": {"CFG Rescale Extension": {"args": [2]}}}, "guidance rescale: got 2"),
        ({"alwayson_scripts": {"CFG Rescale Extension": 2}}, "alwayson_scripts.cfg rescale extension: got 2"),
        ({**HUGE, "alwayson_scripts": {"controlnet": {"args": [{**UNIT, "resize_mode": 0}]}}}, "got 100000x100000"),
        ({"override_settings": {"CLIP_stop_at_last_layers": "two"}}, "CLIP_stop_at_last_layers: got 'two'"),
        ({"override_settings": {"CLIP_stop_at_last_layers": [2]}}, "CLIP_stop_at_last_layers: got [2]"),
        ({"denoising_strength": float("nan")}, "denoising_strength"),
    ],
)
def test_mistakes_are_answered_in_the_form_of_this_interface(service, change, detail):
    body = {"prompt": "red", "steps": 2, **change}
    answer = service.ask("POST", "/sdapi/v1/txt2img", body)
    assert answer.status == 422
    assert set(answer.json()) == {"error", "detail", "body", "errors"}
    assert detail in answer.json()["detail"]


def test_a_picture_that_is_none_is_named(service):
    answer = service.ask("POST", "/sdapi/v1/img2img", {"init_images": ["aGVsbG8="]})
    assert (answer.status, "init_images" in answer.json()["detail"]) == (422, True)
