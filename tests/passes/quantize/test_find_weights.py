from mlc_controlnet.capture import CapturedModel
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.passes.quantize.find_weights import find_weights
from tests.passes.quantize.packed_model import captured_layers


def test_matrix_products_and_convolutions_are_found_and_first_and_last_layers_are_not() -> None:
    found = {param.name for param in find_weights(captured_layers("float32"))}
    joined = {"unet.q.weight + 1 more"}
    alone = {f"unet.{name}.weight" for name in ("first", "time", "proj_in", "geglu", "back", "up")}
    assert found == joined | alone


def test_norms_biases_embeddings_and_small_weights_stay(cleaned: CapturedModel, checkpoint: Checkpoint) -> None:
    tensors = checkpoint.stored_tensors()
    found = find_weights(cleaned)
    assert found
    for param, place in found.items():
        shape = param.shape(tensors)
        assert len(shape) in (2, 4)
        assert place.rows * place.columns >= 4096
        assert (place.rows * place.columns) == param.bytes(tensors) // 2
        assert not any(
            word in param.name
            for word in ("token_embedding", "position_embedding", ".norm", ".bias", "unet.conv_in", "unet.conv_out")
        )
