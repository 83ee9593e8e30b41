"""Judges a hand-written product of matrix instructions, which WGSL has behind a flag of Chromium's, in place of ours.

The feature is `chromium-experimental-subgroup-matrix` (Dawn, docs/dawn/features/subgroup_matrix.md). No kernel of ours
uses it: the shader says what it would be worth.
"""

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import nn

from mlc_controlnet.bench.compilers.chips import Chip
from mlc_controlnet.bench.compilers.judge import Launched, Subject, judge
from mlc_controlnet.bench.compilers.judgement import Judgement
from mlc_controlnet.bench.compilers.null_device import null_device
from mlc_controlnet.bench.operations.operations import select
from mlc_controlnet.errors import UserError
from mlc_controlnet.kernels.hand_written import with_constants
from mlc_controlnet.kernels.integers import ceil_div

SHADER = Path(__file__).with_name("matrix_product.wgsl")
NAME, DTYPE = "matrix_product", "float16"
TILE = 64  # rows and columns of a workgroup


def judge_matrix_products(only: tuple[str, ...], chips: Sequence[Chip]) -> Iterator[tuple[Chip, Judgement]]:
    """Judge the matrix products of `bench kernels` with a part of `only` in their name, or all.

    chips: whose matrix instructions Vulkan offers; the limit is their rate.

    Raises UserError if no product matches, or if a program or package is missing.
    """
    products = [(operation, operation.make()) for operation in select(only, False)[1:]]
    linear = [(operation, module) for operation, module in products if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError("--only", ", ".join(only), "a part of a matrix product's name", "pass matmul")
    for operation, module in linear:
        ((_, rows, depth),) = operation.shapes(operation.size)
        columns = module.out_features
        moved = 2 * (rows * depth + depth * columns + columns + rows * columns)
        subject = Subject(operation.name, operation.title(operation.size), rows * depth * columns, moved)
        wgsl = with_constants(
            NAME, SHADER.read_text(encoding="utf-8"), {"rows": rows, "depth": depth, "columns": columns}
        )
        launch = Launched(wgsl, 1, ceil_div(rows, TILE) * ceil_div(columns, TILE), moved)
        for chip in chips:
            limit = dataclasses.replace(chip, teraflops={DTYPE: chip.matrix_teraflops})
            with tempfile.TemporaryDirectory() as folder:
                yield from judge(subject, {NAME: launch}, DTYPE, [limit], null_device(chip, Path(folder)))
