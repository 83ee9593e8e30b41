from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mlc_controlnet.checkpoint.weight_file import read_weights
from mlc_controlnet.errors import UserError


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("conv.weight.absmax", "bitsandbytes"),
        ("conv.weight.quant_state.bitsandbytes__nf4", "bitsandbytes"),
        ("conv.weight._scale", "quanto"),
        ("conv.qweight", "GPTQ"),
        ("conv.scale_weight", "ComfyUI's float8"),
    ],
)
def test_a_model_that_is_quantized_already_is_refused_by_its_tools_name(tmp_path: Path, name: str, tool: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"conv.weight": torch.zeros(8, 1, dtype=torch.uint8), name: torch.zeros(1)}, path)
    with pytest.raises(UserError, match=rf"model.safetensors: got weights that .*{tool} quantized already .*--weights"):
        read_weights(path)


def test_a_gguf_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model-q4_0.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"got a GGUF file, whose weights are quantized already"):
        read_weights(path)
