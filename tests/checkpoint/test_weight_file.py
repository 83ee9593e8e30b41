"""Files are parsed and never run, and a damaged one is told from a sound one whatever its format."""

import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mlc_controlnet.checkpoint.weight_file import read_weights
from mlc_controlnet.errors import UserError

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1000, dtype=torch.float16)}
TORCH_NAMES = ["model.ckpt", "model.pth", "model.bin"]


def write(path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path)
    return path


class RunsCode:
    """What a malicious pickle holds: a call."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("name", ["model.safetensors", *TORCH_NAMES])
def test_every_format_gives_the_same_tensors(tmp_path: Path, name: str) -> None:
    tensors = read_weights(write(tmp_path / name)).tensors
    assert tensors.keys() == WEIGHTS.keys()
    assert all(torch.equal(tensors[key], WEIGHTS[key]) for key in WEIGHTS)


@pytest.mark.parametrize("module", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_numbers_of_numpy_beside_the_weights_are_read(tmp_path: Path, module: bytes) -> None:
    """Training loops of 2022 kept losses and counts together with the weights; NumPy 2 moved the module they name."""
    numbers = {"loss": np.float64(0.5), "step": np.int64(3), "done": np.bool_(True), "lr": np.float32(1e-4)}
    torch.save({"state_dict": WEIGHTS, "numbers": numbers}, tmp_path / "new.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "new.ckpt") as new,
        zipfile.ZipFile(tmp_path / "old.ckpt", "w", zipfile.ZIP_STORED) as old,
    ):
        for item in new.infolist():
            data = new.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data
                data = data.replace(b"numpy._core.multiarray", module)
            old.writestr(item.filename, data)
    assert read_weights(tmp_path / "old.ckpt").tensors.keys() == WEIGHTS.keys()


def test_a_pickle_that_hides_a_call_in_numpys_objects_is_refused_and_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    torch.save({"state_dict": WEIGHTS, "numbers": np.array([RunsCode(witness)], dtype=object)}, tmp_path / "m.ckpt")
    with pytest.raises(UserError, match="a pickle that asks for more than tensors"):
        read_weights(tmp_path / "m.ckpt")
    assert not witness.exists()


def test_the_prefix_of_a_compiled_module_is_dropped_wherever_it_is(tmp_path: Path) -> None:
    save_file({"_orig_mod.a.weight": torch.ones(1), "b._orig_mod.weight": torch.ones(1)}, tmp_path / "m.safetensors")
    assert read_weights(tmp_path / "m.safetensors").tensors.keys() == {"a.weight", "b.weight"}


def test_a_module_that_is_called_module_keeps_its_name_if_others_have_none(tmp_path: Path) -> None:
    save_file({"module.weight": torch.ones(1), "b.weight": torch.ones(1)}, tmp_path / "m.safetensors")
    assert read_weights(tmp_path / "m.safetensors").tensors.keys() == {"module.weight", "b.weight"}


@pytest.mark.parametrize("name", TORCH_NAMES)
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    witness = tmp_path / "ran"
    torch.save({**WEIGHTS, "extra": RunsCode(witness)}, tmp_path / name)
    with pytest.raises(UserError, match=r"a pickle that asks for more than tensors \((posix|nt)\.mkdir\)") as error:
        read_weights(tmp_path / name)
    assert "weights_only" not in str(error.value), "no advice on how to run it"
    assert not witness.exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    (tmp_path / "model.ckpt").write_bytes(pickle.dumps(RunsCode(witness)))
    with pytest.raises(UserError, match="no zip archive"):
        read_weights(tmp_path / "model.ckpt")
    assert not witness.exists()


def test_a_pickle_under_the_name_of_safetensors_is_not_read(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="damaged file"):
        read_weights(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
@pytest.mark.parametrize("kept", [0, 1, 7, 100, -1, -500])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, kept: int) -> None:
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=rf"{name}: got (a damaged file|no zip archive)"):
        read_weights(path)


def test_a_header_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors")
    path.write_bytes(struct.pack("<Q", 2**60) + path.read_bytes()[8:])
    with pytest.raises(UserError, match="damaged file"):
        read_weights(path)


def test_a_torch_file_whose_storage_is_too_small_is_refused(tmp_path: Path) -> None:
    """The pickle promises more numbers than the archive holds."""
    with (
        zipfile.ZipFile(write(tmp_path / "sound.pth")) as sound,
        zipfile.ZipFile(tmp_path / "model.pth", "w", zipfile.ZIP_STORED) as broken,
    ):
        for item in sound.infolist():
            data = sound.read(item)
            broken.writestr(item.filename, data[:4] if item.filename.endswith("data/1") else data)
    with pytest.raises(UserError, match="damaged file"):
        read_weights(tmp_path / "model.pth")


def test_what_is_no_tensor_is_named(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(1), "epoch": 3}, tmp_path / "model.ckpt")
    with pytest.raises(UserError, match=r"model\.ckpt: epoch: got a int, wanted a tensor"):
        read_weights(tmp_path / "model.ckpt")


def test_a_file_that_is_no_dictionary_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "model.ckpt")
    with pytest.raises(UserError, match="got a list, wanted tensors by name"):
        read_weights(tmp_path / "model.ckpt")


def test_another_kind_of_file_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"ONNX")
    with pytest.raises(UserError, match=r"got a \.onnx file"):
        read_weights(tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a pointer of Git LFS.*git lfs pull"),
        (b"\n<!doctype html><html>", "a web page under the name of the file.*/resolve/ instead of /blob/"),
        (b"<HTML><head>", "a web page"),
    ],
)
def test_what_was_stored_in_the_place_of_a_file_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: got {message}"):
        read_weights(tmp_path / name)
