"""Components of round numbers: what is alive in each one's turn can be added up by hand."""

import dataclasses

import pytest

from mlc_controlnet.bundle.manifest import ComponentEntry, Library, MemoryPlan
from mlc_controlnet.bundle.params import MergedParam, ParamRecord, ParamsSpec, QuantizedParam
from mlc_controlnet.bundle.variant import FunctionEntry, Variant
from mlc_controlnet.components import COMPUTE, DRAWING, INPAINTING_CHANNELS, TensorSpec
from mlc_controlnet.export.weight_residency import plan_residency

# Elements of each param, in the order of the component's function.
PARAMS = {
    "text_encoder": [40],
    "control_embedding": [4],
    "controlnet": [30, 20, 30, 20],
    "unet": [100, 100, 40, 5, 30],
    "vae_decoder": [20, 10],
    "vae_encoder": [1000],
}
ACTIVATION_BYTES = {
    "text_encoder": 8,
    "control_embedding": 8,
    "controlnet": 64,
    "unet": 48,
    "vae_decoder": 90,
    "vae_encoder": 5000,
}


def tensor(size: int, dtype: str = COMPUTE) -> TensorSpec:
    return TensorSpec("tensor", (1, size), dtype)


def bundle(names: tuple[str, ...] = tuple(PARAMS)) -> tuple[dict[str, ComponentEntry], ParamsSpec]:
    """Each component has a float32 input of one number; a context has 2, residuals 4 + 1, the picture 6."""
    outputs = {
        "text_encoder": (tensor(2),),
        "control_embedding": (tensor(3),),
        "controlnet": (tensor(4), tensor(1)),
        "vae_decoder": (tensor(6, "float32"),),
    }
    components = {
        name: ComponentEntry(
            name,
            (tensor(1, "float32"), tensor(9)),
            outputs.get(name, ()),
            tuple(f"{name}.{i}" for i in range(len(PARAMS[name]))),
        )
        for name in names
    }
    records = tuple(
        ParamRecord(f"{name}.{i}", (size,), "float16", 0, 0, 2 * size)
        for name in names
        for i, size in enumerate(PARAMS[name])
    )
    return components, ParamsSpec("float16", sum(record.bytes for record in records), ("params/00.bin",), records)


def plan(dtype: str = "float16", names: tuple[str, ...] = tuple(PARAMS)) -> MemoryPlan:
    library = Library("x.wasm", "webgpu", dtype, (), {}, ACTIVATION_BYTES, {}, 0)
    return plan_residency([library], *bundle(names))["x.wasm"]


HOST = len(DRAWING) * 4 + 6 * 4  # an input each, and the picture that the host reads


def test_resident_every_weight_of_what_draws_stays():
    resident = plan().resident
    assert resident.kept_params == {name: len(PARAMS[name]) for name in DRAWING} | {"vae_encoder": 0}
    assert resident.step_upload_bytes == 0
    weights = 2 * sum(sum(PARAMS[name]) for name in DRAWING)
    # In the UNet's turn: two contexts, the embedding, two sets of residuals, and the ControlNet's workspace without its
    # own residuals, which waits for the next step.
    assert resident.peak_bytes == weights + 48 + 2 * 4 + 6 + 2 * 10 + (64 - 10) + HOST


def test_of_an_inpainting_model_the_encoder_draws_too():
    components, params = bundle()
    unet = components["unet"]
    sample = TensorSpec("sample", (1, INPAINTING_CHANNELS, 1, 1), "float32")
    components["unet"] = ComponentEntry("unet", (sample, *unet.inputs[1:]), unet.outputs, unet.params)
    library = Library("x.wasm", "webgpu", "float16", (), {}, ACTIVATION_BYTES, {}, 0)
    planned = plan_residency([library], components, params)["x.wasm"]
    assert planned.resident.kept_params == {name: len(PARAMS[name]) for name in PARAMS}
    host = HOST + (INPAINTING_CHANNELS - 1) * 4 + 4  # the UNet's sample, and the encoder's input
    # The peak is the encoder's turn: with all weights, or its own and the halves that stay, and two contexts.
    assert planned.resident.peak_bytes == 2 * sum(map(sum, PARAMS.values())) + 5000 + 2 * 4 + host
    assert planned.reduced.kept_params["vae_encoder"] == 0
    assert planned.reduced.peak_bytes == 2 * (50 + 200 + 1000) + 5000 + 2 * 4 + host


def test_reduced_half_the_controlnet_changes_places_with_as_much_of_the_unet():
    reduced = plan().reduced
    # 50 of the ControlNet's 100 stay; 30 + 5 of the UNet's last would be too little for the other 50.
    assert reduced.kept_params == dict.fromkeys(PARAMS, 0) | {"controlnet": 2, "unet": 2}
    assert reduced.step_upload_bytes == 2 * (30 + 20) + 2 * (40 + 5 + 30)
    # In the UNet's turn: all of the UNet, half of the ControlNet, two contexts, the embedding, two sets of residuals.
    assert reduced.peak_bytes == 2 * (275 + 50) + 48 + 2 * 4 + 6 + 2 * 10 + HOST


def test_a_preview_decoder_stays_because_it_runs_between_the_steps():
    components, params = bundle()
    record = ParamRecord("preview_decoder.0", (7,), "float16", 0, 0, 14)
    inputs, outputs = (tensor(1, "float32"), tensor(9)), (tensor(6, "float32"),)
    components["preview_decoder"] = ComponentEntry("preview_decoder", inputs, outputs, (record.name,))
    library = Library("x.wasm", "webgpu", "float16", (), {}, {**ACTIVATION_BYTES, "preview_decoder": 1000}, {}, 0)
    params = dataclasses.replace(params, records=(*params.records, record))
    planned, plain = plan_residency([library], components, params)["x.wasm"], plan()
    for mode, before in ((planned.resident, plain.resident), (planned.reduced, plain.reduced)):
        assert mode.kept_params == before.kept_params | {"preview_decoder": 1}
        assert mode.step_upload_bytes == before.step_upload_bytes
    # The peak is the preview's turn: two contexts, the embedding and two sets of residuals wait for the next step.
    weights = 2 * (sum(sum(PARAMS[name]) for name in DRAWING) + 7)
    assert planned.resident.peak_bytes == weights + 1000 + 2 * 4 + 6 + 2 * 10 + HOST + 4


def test_float32_weights_and_what_passes_between_components_are_twice_as_large():
    half, full = plan("float16"), plan("float32")
    assert full.reduced.kept_params == half.reduced.kept_params
    assert full.reduced.step_upload_bytes == 2 * half.reduced.step_upload_bytes
    fixed = 48 + HOST  # planned activations are the library's own figure
    assert full.reduced.peak_bytes - fixed == 2 * (half.reduced.peak_bytes - fixed)


@pytest.mark.parametrize("names", [("text_encoder",), ("unet", "vae_decoder"), ("vae_encoder",)])
def test_a_bundle_of_some_components_has_a_plan(names: tuple[str, ...]):
    planned = plan(names=names)
    assert planned.reduced.kept_params == dict.fromkeys(names, 0)
    assert planned.reduced.peak_bytes <= planned.resident.peak_bytes


def test_further_controlnets_stay_too_and_are_not_in_the_peak():
    """Most pictures use one: each further one in use adds its weights."""
    components, params = bundle()
    twins = {
        f"{name}_2": ComponentEntry(name, components[name].inputs, components[name].outputs, components[name].params)
        for name in ("control_embedding", "controlnet")
    }
    library = Library("x.wasm", "webgpu", "float16", (), {}, ACTIVATION_BYTES, {}, 0)
    one = plan_residency([library], components, params)["x.wasm"]
    two = plan_residency([library], {**components, **twins}, params)["x.wasm"]
    assert two.resident.peak_bytes == one.resident.peak_bytes
    assert two.reduced.peak_bytes == one.reduced.peak_bytes
    assert (two.resident.kept_params["controlnet_2"], two.resident.kept_params["control_embedding_2"]) == (4, 1)
    assert (two.reduced.kept_params["controlnet_2"], two.reduced.kept_params["control_embedding_2"]) == (0, 0)


def test_the_variant_that_needs_most_decides():
    """A picture of another size, whose UNet works with 500 bytes more, and prompts of three chunks."""
    components, params = bundle()
    larger = {**ACTIVATION_BYTES, "unet_large": ACTIVATION_BYTES["unet"] + 500}
    library = Library("x.wasm", "webgpu", "float16", (), {}, larger, {}, 0)
    unet = components["unet"]
    size = Variant(8, 8, 1, {"unet": FunctionEntry("unet_large", unet.inputs, unet.outputs)})
    longer = Variant(8, 8, 3, size.functions)
    alone = plan()
    for variants, more in (((size,), 500), ((size, longer), 500 + 2 * 2 * 4)):  # two contexts of two chunks more
        planned = plan_residency([library], components, params, variants)["x.wasm"]
        assert planned.resident.peak_bytes == alone.resident.peak_bytes + more
        assert planned.reduced.peak_bytes == alone.reduced.peak_bytes + more
        assert planned.reduced.kept_params == alone.reduced.kept_params


def test_deep_features_of_both_contexts_wait_for_the_shallow_unet():
    components, params = bundle()
    unet = components["unet"]
    components["unet"] = dataclasses.replace(unet, outputs=(tensor(1, "float32"), tensor(7)))
    library = Library("x.wasm", "webgpu", "float16", (), {}, {**ACTIVATION_BYTES, "unet_shallow": 16}, {}, 0)
    components["unet_shallow"] = ComponentEntry("unet_shallow", (tensor(9),), (tensor(1),), unet.params[:1])
    planned = plan_residency([library], components, params)["x.wasm"]
    assert planned.resident.peak_bytes == plan().resident.peak_bytes + 2 * 2 * 7 + 16
    assert planned.resident.kept_params["unet_shallow"] == 0  # its weights are the UNet's, which stay


def test_merged_weights_are_held_like_others_and_what_they_are_made_of_is_not():
    """The ControlNet's first weight is the UNet's third's size, made of it and of a factor of 10 numbers."""
    components, params = bundle()
    controlnet = components["controlnet"]
    kept = controlnet.params[1:]
    components["controlnet"] = dataclasses.replace(controlnet, params=("made", *kept))
    records = [record for record in params.records if record.name != controlnet.params[0]]
    factor = ParamRecord("factor", (10,), "float16", 0, 0, 20)
    made = MergedParam("made", (5, 6), "merge", ("unet.2", "factor"))
    params = dataclasses.replace(params, records=(*records, factor), merged=(made,))
    for workspace in (4, 10000):
        library = Library("x.wasm", "webgpu", "float16", (), {}, {**ACTIVATION_BYTES, "merge": workspace}, {}, 0)
        planned, plain = plan_residency([library], components, params)["x.wasm"], plan()
        assert planned.resident.kept_params == plain.resident.kept_params
        assert planned.reduced.kept_params == plain.reduced.kept_params
        assert planned.reduced.step_upload_bytes == plain.reduced.step_upload_bytes
        if workspace == 4:
            assert (planned.resident.peak_bytes, planned.reduced.peak_bytes) == (
                plain.resident.peak_bytes,
                plain.reduced.peak_bytes,
            )
            continue
        # The peak is before the ControlNet's turn: two contexts, the embedding and a set of residuals may wait.
        alive = 2 * 4 + 6 + 10 + HOST
        weights = 2 * sum(sum(PARAMS[name]) for name in DRAWING)
        assert planned.resident.peak_bytes == weights + 20 + workspace + alive
        assert planned.reduced.peak_bytes == 2 * (50 + 200) + 2 * 50 + 80 + 20 + workspace + alive


def test_a_weight_of_two_components_is_counted_once():
    components, params = bundle()
    controlnet = components["controlnet"]
    components["controlnet"] = dataclasses.replace(controlnet, params=("unet.0", *controlnet.params[1:]))
    library = Library("x.wasm", "webgpu", "float16", (), {}, ACTIVATION_BYTES, {}, 0)
    planned = plan_residency([library], components, params)["x.wasm"]
    assert planned.resident.peak_bytes == plan().resident.peak_bytes - 2 * PARAMS["controlnet"][0]


def test_matrices_in_float16_take_half_of_a_float32_librarys_bytes_and_tables_do_not():
    components, params = bundle(("unet",))
    shapes = [(10, 10), (100,), (4, 10), (5,), (5, 6)]  # the last is a palette
    records = tuple(
        dataclasses.replace(record, shape=shape) for record, shape in zip(params.records, shapes, strict=True)
    )
    quantized = QuantizedParam("unet.weight", (5, 6), "palette", 4, 32, records[2].name, records[4].name)
    params = dataclasses.replace(params, records=records, quantized=(quantized,))

    def peak(memory_dtype: str) -> int:
        library = Library("x.so", "llvm", "float32", (), {}, ACTIVATION_BYTES, {}, 0, memory_dtype=memory_dtype)
        return plan_residency([library], components, params)["x.so"].resident.peak_bytes

    assert peak("") - peak("float16") == 2 * (100 + 40)
