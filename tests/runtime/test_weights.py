"""Native weights in the two modes of a bundle's memory plan."""

import dataclasses
import math

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.export.weight_residency import plan_residency
from mlc_controlnet.runtime.engine import Engine
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from mlc_controlnet.runtime.weight_store import WeightStore
from tests.fixtures.linear_bundle import IMAGE, LATENT, TOKENS

SECOND = "controlnet_2.gain"
TEXT, CONTROLNET, UNET, DECODER = "text_encoder.embedding", "controlnet.gain", "unet.mixing", "vae_decoder.colors"


@pytest.fixture
def reduced(linear_bundle):
    with Engine.load(linear_bundle, reduced_memory=True) as engine:
        yield engine


def test_resident_every_weight_is_on_the_device_from_the_first(linear_bundle):
    with Engine.load(linear_bundle) as engine:
        assert engine.weights.on_device == {TEXT, CONTROLNET, UNET, DECODER}
        engine.vae_decoder(np.zeros(LATENT, np.float32))
        assert engine.weights.on_device == {TEXT, CONTROLNET, UNET, DECODER}


def test_reduced_a_weight_that_leaves_is_there_in_its_components_turn_alone(reduced):
    engine, stays = reduced, set()  # the one weight of the ControlNet changes places with the UNet's
    assert engine.weights.on_device == stays
    engine.text_encoder(np.zeros((1, TOKENS), np.int32))
    assert engine.weights.on_device == stays | {TEXT}
    engine.control_embedding(np.zeros(IMAGE, np.float32), engine.bundle.manifest.controlnets[0])
    assert engine.weights.on_device == stays
    engine.vae_decoder(np.zeros(LATENT, np.float32))
    assert engine.weights.on_device == stays | {DECODER}


def test_a_further_controlnets_weight_comes_when_a_picture_uses_it_and_stays(linear_bundle_of_two):
    lines, depth = linear_bundle_of_two.manifest.controlnets
    sample = np.zeros(LATENT, np.float32)
    with Engine.load(linear_bundle_of_two) as engine:
        context = engine.text_encoder(np.zeros((1, TOKENS), np.int32))
        for controlnet, on_device in ((lines, set()), (depth, {SECOND}), (lines, {SECOND})):
            control = engine.control_embedding(np.zeros(IMAGE, np.float32), controlnet)
            engine.controlnet(sample, 500.0, context, control, [1.0, 1.0])
            assert engine.weights.on_device == {TEXT, CONTROLNET, UNET, DECODER} | on_device


def test_a_weight_comes_back_as_it_was(reduced):
    latents = np.random.default_rng(0).normal(size=LATENT).astype(np.float32)
    first = reduced.vae_decoder(latents)
    reduced.text_encoder(np.zeros((1, TOKENS), np.int32))
    assert np.array_equal(reduced.vae_decoder(latents), first)


def test_bundles_over_one_base_hold_its_weights_once(linear_bundle, linear_bundle_of_two):
    store = WeightStore()
    sample = np.ones(LATENT, np.float32)
    alone = Engine.load(linear_bundle_of_two)
    with (
        Engine.load(linear_bundle, store=store) as one,
        Engine.load(linear_bundle_of_two, store=store) as two,
        alone,
    ):
        for name in (TEXT, CONTROLNET, UNET, DECODER):
            assert one.weights._kept[name].same_as(two.weights._kept[name])
        records = {record.name: record.bytes for record in linear_bundle.manifest.params.records}
        assert store.shared_bytes == sum(records[name] for name in (TEXT, CONTROLNET, UNET, DECODER))
        assert np.array_equal(two.vae_decoder(sample), alone.vae_decoder(sample))
        one.unload()
        assert np.array_equal(two.vae_decoder(sample), alone.vae_decoder(sample))


def test_weights_of_equal_bytes_and_another_shape_are_two():
    store, uploaded = WeightStore(), []
    for shape in ((2, 8), (4, 4), (4, 4)):
        store.take(np.zeros(shape, np.float16), "float32", "cpu", lambda stored: uploaded.append(stored.shape))
    assert uploaded == [(2, 8), (4, 4)]


def test_the_turn_that_did_not_begin_is_begun_again(reduced, monkeypatch):
    """A device that was full for a moment: the next call uploads the weights that this one did not."""
    latents = np.ones(LATENT, np.float32)
    upload, weights = reduced.weights._upload, reduced.weights

    def fail(stored):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(weights, "_upload", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        reduced.vae_decoder(latents)
    monkeypatch.setattr(weights, "_upload", upload)
    assert np.isfinite(reduced.vae_decoder(latents)).all()


def test_the_picture_is_the_same_in_both_modes(circles_bundle):
    ring = Image.new("L", (128, 128))
    ring.paste(255, (30, 30, 80, 80))
    pictures = []
    for reduced_memory in (False, True):
        pipeline = ControlNetPipeline.from_bundle(circles_bundle, reduced_memory=reduced_memory)
        drawn = [
            pipeline("gold circle with navy background", ring, num_inference_steps=4, seed=7).images[0]
            for _ in range(2)
        ]
        assert np.array_equal(*map(np.asarray, drawn))
        pictures.append(np.asarray(drawn[0]))
        pipeline.unload()
    assert np.array_equal(*pictures)


def test_matrices_of_circles_lie_in_memory_as_the_bundle_stores_them(circles_bundle):
    """Weights in memory take what their files take, half of float32, and the plan says so."""
    (library, *_), params = circles_bundle.manifest.libraries, circles_bundle.manifest.params
    records = {record.name: record for record in params.records}
    with Engine.load(circles_bundle) as engine:
        tensors = {name: engine.weights._kept[name] for name in engine.weights.on_device}
    dtypes = {name: str(tensor.dtype) for name, tensor in tensors.items()}
    assert dtypes == {name: "float16" if len(records[name].shape) > 1 else "float32" for name in tensors}
    sizes = {name: np.dtype(dtypes[name]).itemsize * math.prod(records[name].shape) for name in tensors}
    stored = sum(records[name].bytes for name in tensors)
    assert stored < sum(sizes.values()) < 1.02 * stored  # vectors are widened
    wide = dataclasses.replace(library, memory_dtype="")
    plans = (
        plan_residency([library], circles_bundle.manifest.components, params),
        plan_residency([wide], circles_bundle.manifest.components, params),
    )
    narrow_peak, wide_peak = (plan[library.file].resident.peak_bytes for plan in plans)
    assert wide_peak - narrow_peak == 2 * stored - sum(sizes.values())
    assert narrow_peak == circles_bundle.manifest.memory[library.file].resident.peak_bytes
