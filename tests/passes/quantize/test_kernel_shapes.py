from mlc_controlnet.capture import CapturedModel
from mlc_controlnet.passes.quantize.find_weights import find_weights
from mlc_controlnet.passes.quantize.kernel_shapes import kernel_shapes


def test_every_weight_that_can_be_packed_has_the_shapes_of_its_readers(cleaned: CapturedModel) -> None:
    places = find_weights(cleaned)
    shapes = kernel_shapes(cleaned, places)
    assert shapes.keys() == places.keys()
    for param, own in shapes.items():
        assert own
        for x, weight, result in own:
            assert weight[0 if len(weight) == 4 else -1] in (result[1], result[-1])  # outputs
            assert weight[1 if len(weight) == 4 else 0] in (x[1], x[-1])  # inputs
            assert weight[0] * weight[-1] <= places[param].numbers


def test_equal_layers_have_equal_shapes_and_others_have_not(cleaned: CapturedModel) -> None:
    shapes = kernel_shapes(cleaned, find_weights(cleaned))
    of = {param.name: own for param, own in shapes.items()}
    first, second, wider = (
        next(own for name, own in of.items() if name.endswith(end) and name.startswith("unet."))
        for end in (
            "down_blocks.0.resnets.0.conv1.weight",
            "down_blocks.0.resnets.0.conv2.weight",
            "down_blocks.1.resnets.0.conv2.weight",
        )
    )
    assert first == second != wider
