"""A step is judged with the weights that `--weights` names; the compilers of GPUs are not needed for that."""

import math
from collections.abc import Iterator, Sequence

import pytest
import tvm

from mlc_controlnet.bench.compilers import full_size
from mlc_controlnet.bench.compilers import measure as measuring
from mlc_controlnet.bench.compilers.chips import Chip
from mlc_controlnet.bench.compilers.full_size import NAME, TITLE, name_of_step
from mlc_controlnet.bench.compilers.judge import Subject
from mlc_controlnet.bench.compilers.judgement import Judgement
from mlc_controlnet.bench.packed_weights import WEIGHTS
from mlc_controlnet.cli.main import main
from tests.passes.quantize.packed_model import captured_layers

LEAST_BYTES = 1e6


def test_a_step_is_judged_with_each_of_the_weights_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: dict[str, tuple[Subject, tvm.IRModule]] = {}

    def judge(
        subject: Subject, module: tvm.IRModule, _dtype: str, chips: Sequence[Chip]
    ) -> Iterator[tuple[Chip, Judgement]]:
        judged[subject.name] = subject, module
        yield from ((chip, Judgement(subject.name, subject.title, 1e9, 1.0, (), {})) for chip in chips)

    # Small layers take the place of Stable Diffusion's.
    monkeypatch.setattr(full_size, "stable_diffusion", lambda: None)
    monkeypatch.setattr(full_size, "capture", lambda _checkpoint, dtype: captured_layers(dtype))
    monkeypatch.setattr(full_size, "clean", lambda captured: captured)
    monkeypatch.setattr(full_size, "subject_of_step", lambda *_: Subject(NAME, TITLE, 1e9, LEAST_BYTES))
    monkeypatch.setattr(full_size, "judge_module", judge)
    monkeypatch.setattr(measuring, "mesa_version", lambda _chip: "25.0.7")

    asked = [word for name in WEIGHTS for word in ("--weights", name)]
    assert main(["bench", "compilers", "--step", "--only", NAME, *asked]) == 0
    assert list(judged) == [name_of_step(name) for name in WEIGHTS]

    words = {name: _packed_words(judged[name_of_step(name)][1]) for name in WEIGHTS}
    assert words["float16"] == 0
    eight = words["int8"]
    assert (words["palette6"], words["int4"], words["palette4"]) == (eight * 6 // 8, eight // 2, eight // 2)
    bytes_of_rows = [judged[name_of_step(name)][0].least_bytes for name in WEIGHTS]
    assert bytes_of_rows[0] == LEAST_BYTES
    assert bytes_of_rows == sorted(bytes_of_rows, reverse=True) and len(set(bytes_of_rows)) == len(WEIGHTS)


def _packed_words(module: tvm.IRModule) -> int:
    """Count the words of codes that the function reads."""
    weights = module["unet"].params[-1].ty.fields
    return sum(math.prod(map(int, weight.shape)) for weight in weights if str(weight.dtype) == "uint32")
