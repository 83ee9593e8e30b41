"""ControlNets of one graph: captured once, called with the weights of each."""

import dataclasses

import pytest

from mlc_controlnet.bundle.manifest import ControlNetEntry
from mlc_controlnet.capture import CapturedModel, capture
from mlc_controlnet.checkpoint import Checkpoint, load_checkpoint
from mlc_controlnet.export.description import describe_components, describe_controlnets
from mlc_controlnet.export.graph import graph_of
from mlc_controlnet.passes.pipeline import clean
from tests.fixtures.random_model import save_random_model

CONTROLS = ("control_embedding", "controlnet")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The third pools its residuals."""
    model = save_random_model(
        tmp_path_factory.mktemp("three") / "model", more_controlnets=[{}, {"global_pool_conditions": True}]
    )
    return load_checkpoint(model, 96, 128, components=CONTROLS)


@pytest.fixture(scope="module")
def captured(three: Checkpoint) -> CapturedModel:
    return clean(capture(three))


def test_only_another_graph_is_another_function(captured: CapturedModel) -> None:
    functions = {global_var.name_hint for global_var in captured.module.get_global_vars()}
    assert functions == {"control_embedding", "controlnet", "controlnet_3"}
    assert captured.shared == {
        "control_embedding_2": "control_embedding",
        "controlnet_2": "controlnet",
        "control_embedding_3": "control_embedding",
    }


def test_shared_functions_are_called_with_params_of_the_same_layout(captured: CapturedModel) -> None:
    """The passes packed and permuted the first ControlNet's params; the others' are made in the same way."""
    for own, other, number in (("controlnet", "controlnet_2", 2), ("control_embedding", "control_embedding_3", 3)):
        pairs = list(zip(captured.params[own], captured.params[other], strict=True))
        for param, twin in pairs:
            assert twin.axes == param.axes
            renamed = [row.tensor.replace("controlnet.", f"controlnet_{number}.", 1) for row in param.rows]
            assert [row.tensor for row in twin.rows] == renamed
            assert [(row.start, row.stop) for row in twin.rows] == [(row.start, row.stop) for row in param.rows]
    assert any(len(param.rows) > 1 for param in captured.params["controlnet_2"])
    assert any(param.axes for param in captured.params["controlnet_2"])


def test_every_tensor_of_every_controlnet_is_read_once(captured: CapturedModel, three: Checkpoint) -> None:
    read = [row.tensor for params in captured.params.values() for param in params for row in param.rows]
    assert sorted(read) == sorted(three.tensors())


def test_the_manifest_says_which_function_a_component_calls(captured: CapturedModel, three: Checkpoint) -> None:
    components = describe_components(three, captured)
    assert {name: entry.function for name, entry in components.items()} == {
        name: captured.function_of(name) for name in three.components
    }
    assert components["controlnet_2"].inputs == components["controlnet"].inputs
    described = describe_controlnets(three, captured)
    assert [dataclasses.replace(entry, graph="") for entry in described] == [
        ControlNetEntry("controlnet", "control_embedding", "controlnet"),
        ControlNetEntry("controlnet_2", "control_embedding_2", "controlnet_2"),
        ControlNetEntry("controlnet_3", "control_embedding_3", "controlnet_3", global_pool_conditions=True),
    ]
    assert described[0].graph == described[1].graph != described[2].graph


def test_a_graph_has_one_hash_whatever_the_controlnets_number(captured: CapturedModel, three: Checkpoint) -> None:
    """The third ControlNet alone, as it would be added to a bundle that has it already."""
    alone = dataclasses.replace(three, components=("control_embedding_3", "controlnet_3"))
    again = clean(capture(alone))
    assert again.function_of("control_embedding_3") != captured.function_of("control_embedding_3")
    assert describe_controlnets(alone, again) == describe_controlnets(three, captured)[2:]
    assert graph_of(again, "controlnet_3") != graph_of(captured, "controlnet")
