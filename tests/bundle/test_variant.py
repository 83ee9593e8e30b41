"""Other sizes and longer prompts in the manifest: functions in the place of the components' own."""

import dataclasses
from pathlib import Path

import pytest

from mlc_controlnet.bundle.manifest import ComponentEntry, Manifest
from mlc_controlnet.bundle.reader import read_bundle
from mlc_controlnet.bundle.variant import FunctionEntry, Variant, functions_by_shapes
from mlc_controlnet.components import TensorSpec
from mlc_controlnet.errors import UserError


def tensor(*shape: int) -> tuple[TensorSpec, ...]:
    return (TensorSpec("tensor", shape, "float32"),)


COMPONENTS = {
    "unet": ComponentEntry("unet", tensor(1, 2), tensor(1, 2), ("w",)),
    "controlnet": ComponentEntry("controlnet", tensor(1, 2), tensor(1, 2), ("v",)),
    "controlnet_2": ComponentEntry("controlnet", tensor(1, 2), tensor(1, 2), ("u",)),
}
LARGE = Variant(
    768,
    512,
    1,
    {
        "unet": FunctionEntry("unet_512x768", tensor(1, 3), tensor(1, 3)),
        "controlnet": FunctionEntry("controlnet_512x768", tensor(1, 3), tensor(1, 3)),
    },
)


def test_components_that_share_a_function_share_its_variant_and_keep_their_params() -> None:
    large = LARGE.apply_to(COMPONENTS)
    assert [entry.function for entry in large.values()] == ["unet_512x768", "controlnet_512x768", "controlnet_512x768"]
    assert [entry.params for entry in large.values()] == [("w",), ("v",), ("u",)]
    assert {entry.inputs for entry in large.values()} == {tensor(1, 3)}


def test_a_component_without_a_variant_stays() -> None:
    only_unet = dataclasses.replace(LARGE, functions={"unet": LARGE.functions["unet"]})
    assert only_unet.apply_to(COMPONENTS)["controlnet_2"] == COMPONENTS["controlnet_2"]


def test_the_shapes_of_the_inputs_choose_the_function() -> None:
    functions = functions_by_shapes(COMPONENTS, [LARGE])
    assert functions["unet", ((1, 2),)] == "unet"
    assert functions["unet", ((1, 3),)] == "unet_512x768"
    assert functions["controlnet", ((1, 3),)] == "controlnet_512x768"
    assert ("unet", ((1, 4),)) not in functions


def test_a_manifest_lists_its_sizes_and_the_longest_prompt(manifest: Manifest) -> None:
    model = manifest.model
    longer = [Variant(model.height, model.width, chunks, {}) for chunks in (2, 3)]
    larger = dataclasses.replace(manifest, variants=(*longer, dataclasses.replace(LARGE, functions={})))
    assert larger.sizes == ((model.height, model.width), (768, 512))
    assert larger.max_chunks == 3
    assert (manifest.sizes, manifest.max_chunks) == (((model.height, model.width),), 1)


def test_a_variant_of_no_component_is_refused(bundle_path: Path) -> None:
    manifest = read_bundle(bundle_path).manifest
    strange = dataclasses.replace(LARGE, functions={"decoder": LARGE.functions["unet"]})
    with pytest.raises(UserError, match="512x768, 1 chunks: got decoder, no component's function"):
        dataclasses.replace(manifest, variants=(strange,)).validate()
    dataclasses.replace(manifest, variants=(dataclasses.replace(LARGE, functions={}),)).validate()
