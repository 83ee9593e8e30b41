"""A file's weights take memory while they are read, and not after: a build reads several times what its machine has."""

import mmap
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mlc_controlnet.capture import Param, Quantizer
from mlc_controlnet.capture.reference import widen_while_it_runs
from mlc_controlnet.checkpoint import give_back
from mlc_controlnet.checkpoint.load_part import load_part
from mlc_controlnet.checkpoint.modules import build_empty, with_defaults
from mlc_controlnet.checkpoint.source import PartSource
from mlc_controlnet.checkpoint.weight_file import read_weights
from mlc_controlnet.export.params import write_params
from mlc_controlnet.quantize.scheme import PALETTE, choose_scheme

pytestmark = pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="this system takes no pages back")

ROWS, COLUMNS = 512, 1024  # of a weight of 1 MiB
MEGABYTE = 2**20
AROUND = 2**16  # a system that reads a page of a file maps its neighbours in the cache too


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, torch.Tensor]:
    """Four of 1 MiB and one number, mapped."""
    save_file(
        {
            "first": torch.ones(1, dtype=torch.float16),
            **{f"{i}.weight": torch.full((ROWS, COLUMNS), i + 0.5, dtype=torch.float16) for i in range(4)},
        },
        tmp_path / "model.safetensors",
    )
    return read_weights(tmp_path / "model.safetensors").tensors


def resident_bytes(folder: Path) -> int:
    """What this process holds in memory of the safetensors files in a folder."""
    spans = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
    own = (span for span in spans if str(folder) in span and ".safetensors" in span)
    return sum(1024 * int(re.findall(r"^Rss:\s+(\d+) kB", span, re.MULTILINE)[0]) for span in own)


def test_what_was_given_back_takes_no_memory_and_is_read_again(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    sums = [tensor.float().sum() for tensor in weights.values()]
    assert resident_bytes(tmp_path) >= 4 * MEGABYTE
    for tensor in weights.values():
        give_back(tensor)
    assert resident_bytes(tmp_path) <= AROUND
    assert [tensor.float().sum() for tensor in weights.values()] == sums


def test_rows_are_given_back_without_their_neighbours(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    weights["1.weight"].float()
    before = resident_bytes(tmp_path)
    give_back(weights["1.weight"][: ROWS // 2])
    given = before - resident_bytes(tmp_path)
    assert MEGABYTE // 2 - 2 * mmap.PAGESIZE <= given <= MEGABYTE // 2
    give_back(weights["1.weight"].T)  # its numbers do not lie one after another
    assert before - resident_bytes(tmp_path) == given


@torch.no_grad()
def test_what_is_no_file_keeps_its_numbers(weights: dict[str, torch.Tensor]) -> None:
    changed = weights["2.weight"] * 2
    give_back(changed)
    assert (changed == 5).all()


def packs(weights: dict[str, torch.Tensor]) -> None:
    scheme = choose_scheme(PALETTE, 6, ROWS, COLUMNS)
    quantizer = Quantizer()
    for name in weights:
        if name != "first":
            quantizer.quantize(Param.whole(name), scheme, weights)


def stores(weights: dict[str, torch.Tensor]) -> None:
    class Discarded:
        def add_bytes(self, name: str, data: bytes) -> None:
            assert name
            assert data

    write_params(Discarded(), {"unet": [Param.whole(name) for name in weights]}, weights)  # type: ignore[arg-type]


@torch.no_grad()
def runs(weights: dict[str, torch.Tensor]) -> None:
    for name in weights:
        if name != "first":
            layer = nn.Linear(COLUMNS, ROWS, bias=False)
            layer.weight = nn.Parameter(weights[name], requires_grad=False)
            widen_while_it_runs(layer)
            assert layer(torch.ones(1, COLUMNS)).isfinite().all()


@pytest.mark.parametrize("read", [runs, packs, stores])
def test_whatever_reads_weights_one_after_another_holds_one(
    read: Callable[[dict[str, torch.Tensor]], None], weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    read(weights)
    assert resident_bytes(tmp_path) <= MEGABYTE + AROUND


def test_a_part_that_was_loaded_and_checked_holds_little_of_its_file(tmp_path: Path) -> None:
    options = {"vocab_size": 64, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 2}
    config = with_defaults("text_encoder", options, str(tmp_path))
    empty = build_empty(PartSource(str(tmp_path), config, dict), "text_encoder")
    shapes = {name: weight.shape for name, weight in empty.named_parameters()}
    file = tmp_path / "model.safetensors"
    save_file({name: torch.ones(shape, dtype=torch.float16) for name, shape in shapes.items()}, file)
    source = PartSource(str(tmp_path), config, lambda: read_weights(file).tensors)
    part = load_part(source, "text_encoder", {})
    around = AROUND * (len(shapes) + 1)
    assert resident_bytes(tmp_path) <= around < file.stat().st_size / 4
    assert all(weight.eq(1).all() for weight in part.parameters())
    assert resident_bytes(tmp_path) > file.stat().st_size / 2  # it is mapped, and was read
