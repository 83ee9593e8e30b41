"""What a bundle's manifest says of its base model is all that a ControlNet to be added is checked against."""

import dataclasses

import pytest

from mlc_controlnet.add_controlnet import model_shapes
from mlc_controlnet.bundle.manifest import ComponentEntry, Manifest
from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.bundle.variant import Variant
from mlc_controlnet.components import PER_CONTROLNET, ModelShape, component_specs

SHAPES = [
    ModelShape(512, 768, 77, 768, 4, 4, (320, 640, 1280, 1280), 2),
    ModelShape(64, 64, 77, 1024, 4, 4, (32, 64, 96, 96), 1),
    ModelShape(128, 64, 77, 64, 16, 16, (32, 64), 3, vae_scale_factor=4),
]


def manifest_of(shape: ModelShape, linear: Manifest) -> Manifest:
    specs = component_specs(shape)
    entries = {name: ComponentEntry(name, specs[name].inputs, specs[name].outputs, ()) for name in PER_CONTROLNET}
    size = {"height": shape.height, "width": shape.width, "vae_scale_factor": shape.vae_scale_factor}
    return dataclasses.replace(linear, model=dataclasses.replace(linear.model, **size), components=entries)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shapes_of_a_base_model_are_read_off_its_controlnet(shape: ModelShape, linear_bundle: Bundle) -> None:
    manifest = manifest_of(shape, linear_bundle.manifest)
    assert model_shapes(manifest) == [shape]
    other = dataclasses.replace(shape, height=256, width=64, chunks=2)
    assert model_shapes(dataclasses.replace(manifest, variants=(Variant(256, 64, 2, {}),))) == [shape, other]
