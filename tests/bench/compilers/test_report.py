import dataclasses
from pathlib import Path

import pytest

from mlc_controlnet.bench.compilers.amd_isa import Cost
from mlc_controlnet.bench.compilers.figures import (
    FOLDER,
    OURS,
    PEER,
    IntelFigures,
    find,
    read_figures,
    read_intel_figures,
    write_figures,
)
from mlc_controlnet.bench.compilers.full_size import NAME
from mlc_controlnet.bench.compilers.intel import IntelJudgement, IntelKernel
from mlc_controlnet.bench.compilers.judgement import KernelJudgement
from mlc_controlnet.bench.compilers.report import BEGIN, END, write_report
from mlc_controlnet.errors import UserError
from mlc_controlnet.locations import PERFORMANCE, README
from tests.bench.compilers.made_up_judgements import figures, judgement, kernel, made_up_judgements


@pytest.fixture
def pages(tmp_path: Path) -> list[Path]:
    written = [tmp_path / "README.md", tmp_path / "page.md"]
    for page in written:
        page.write_text(f"# Before\n{BEGIN}\nold\n{END}\n# After\n")
    return written


def test_a_summary_has_the_step_and_the_ratios_to_the_peer(tmp_path: Path, pages: list[Path]) -> None:
    write_report(made_up_judgements(), [], pages, tmp_path / "figures")
    row = "| Radeon Pro W7900, float16 | 30.0 ms | 0% |  | **1.00x** | 0.50x | 2.00x | 1 of 2 |"
    for page in pages:
        text = page.read_text()
        assert row in text and "old" not in text
        assert text.startswith("# Before\n") and text.endswith("# After\n")


def test_only_the_second_page_lists_the_heaviest_kernels(tmp_path: Path, pages: list[Path]) -> None:
    write_report(made_up_judgements(), [], pages, tmp_path / "figures")
    row = "| `heavy` | 10 | 30.00 | 100% | vector | 1.50 |"
    assert [row in page.read_text() for page in pages] == [False, True]


def test_a_step_stands_beside_the_peers_by_what_kernels_compute_and_is_no_single_operation(
    tmp_path: Path, pages: list[Path]
) -> None:
    ours, theirs = made_up_judgements()
    step = judgement(
        NAME,
        kernel("fused_upsampled_conv2d1_kernel", 2000.0, 2),
        kernel("flash_attention_64x64_8x40_kernel", 1000.0),
        kernel("gated_matmul_kernel", 500.0, 2),
        kernel("group_norm_silu_kernel", 100.0),
        kernel("cast_kernel", 10.0),
    )
    peers = judgement(
        NAME,
        kernel("Conv2dMM_1", 4000.0, 2),
        kernel("FlashAttention_2", 1000.0),
        kernel("AttentionMatMul_3", 500.0, 2),
        kernel("MatMul_4", 500.0, 4),
        kernel("SkipLayerNorm_5", 100.0, 3),
        kernel("Transpose_6", 10.0, 9),
    )
    kept = [
        dataclasses.replace(ours, rows=(step, *ours.rows[1:])),
        dataclasses.replace(theirs, rows=(peers, *theirs.rows)),
    ]
    write_report(kept, [], pages, tmp_path / "figures")
    summary = "| 6.1 ms | 0% | **2.03x** | **1.00x** | 0.50x | 2.00x | 1 of 2 |"
    assert all(summary in page.read_text() for page in pages)
    rows = [
        "| convolutions 3x3 | 4.00 (2) | 8.00 (2) | 2.00x |",
        "| attention | 1.00 (1) | 2.00 (3) | 2.00x |",
        "| matrix products, convolutions 1x1, GEGLU | 1.00 (2) | 2.00 (4) | 2.00x |",
        "| norms | 0.10 (1) | 0.30 (3) | 3.00x |",
        "| sums, activations, changes of layout and the rest | 0.01 (1) | 0.09 (9) | 9.00x |",
        "| all | 6.11 (7) | 12.39 (21) | 2.03x |",
    ]
    assert "\n".join(rows) in pages[1].read_text()
    assert "\n".join(rows) not in pages[0].read_text()


def test_every_row_is_listed_and_so_are_rejected_shaders(tmp_path: Path, pages: list[Path]) -> None:
    ours, theirs = made_up_judgements()
    broken = judgement("broken", errors={"c_kernel": "wrong type"})
    write_report([dataclasses.replace(ours, rows=(*ours.rows, broken)), theirs], [], pages, tmp_path / "figures")
    text = (tmp_path / "figures" / "README.md").read_text()
    assert "| the matmul | 20.0 | 40.0 | 2.00x | 50% | vector | 128 | 0 | 8192 | 12 | 1.50 | 16.0 |" in text
    assert "the broken, c_kernel: wrong type" in text


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no marks")
    with pytest.raises(UserError, match="bench compilers: begin"):
        write_report(made_up_judgements(), [], [page], tmp_path)


def test_kept_figures_are_read_again_and_rows_are_replaced_one_by_one(tmp_path: Path) -> None:
    ours, theirs = made_up_judgements()
    for one in (ours, theirs):
        write_figures(one, ("matmul", "norm"), tmp_path)
    assert find(read_figures(tmp_path), PEER, "navi31", "float16") == theirs
    later = dataclasses.replace(figures(OURS, judgement("norm", kernel("b", 80.0))), command="bench --only norm")
    for _ in range(2):
        write_figures(later, ("matmul", "norm"), tmp_path)
    again = find(read_figures(tmp_path), OURS, "navi31", "float16")
    assert again is not None
    assert [(row.name, row.microseconds) for row in again.rows[1:]] == [("matmul", 20.0), ("norm", 80.0)]
    assert again.command == f"{ours.command}; bench --only norm"


def test_the_repositorys_report_is_that_of_its_figures(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER.relative_to(README.parent)
    copies = [tmp_path / page.relative_to(README.parent) for page in (README, PERFORMANCE)]
    for parent in {folder, *(copy.parent for copy in copies)}:
        parent.mkdir(parents=True, exist_ok=True)
    for copy, page in zip(copies, (README, PERFORMANCE), strict=True):
        copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    write_report(read_figures(), read_intel_figures(), copies, folder)
    for copy, page in zip(copies, (README, PERFORMANCE), strict=True):
        assert copy.read_text() == page.read_text(), "run python -m mlc_controlnet bench report"
    assert (folder / "README.md").read_text() == (FOLDER / "README.md").read_text()


def test_a_chip_without_a_step_and_without_the_peer_has_rows_but_no_line_of_the_summary(
    tmp_path: Path, pages: list[Path]
) -> None:
    alone = dataclasses.replace(figures(OURS, judgement("norm", kernel("b", 80.0))), chip="sm_89")
    write_report([*made_up_judgements(), alone], [], pages, tmp_path / "figures")
    assert "RTX 4090" not in pages[0].read_text()
    assert "## GeForce RTX 4090, float16" in (tmp_path / "figures" / "README.md").read_text()


def test_what_intels_compiler_says_is_kept_and_listed_without_times(tmp_path: Path, pages: list[Path]) -> None:
    norm = IntelJudgement("norm", "the norm", (IntelKernel("norm_kernel", 16, 128, 64, 8192),), "")
    first = IntelFigures("acm-g10", "float16", "bench", "2026-01-31", {"intel-opencl-icd": "22.43"}, (norm,))
    broken = dataclasses.replace(first, command="later", rows=(IntelJudgement("matmul", "the matmul", (), "no"),))
    for one in (first, broken):
        write_figures(one, ("matmul", "norm"), tmp_path / "intel")
    (kept,) = read_intel_figures(tmp_path / "intel")
    assert kept == dataclasses.replace(first, command="bench; later", rows=(*broken.rows, norm))
    write_report(made_up_judgements(), [kept], pages, tmp_path / "figures")
    text = (tmp_path / "figures" / "README.md").read_text()
    assert "## Arc A770, float16\n\n2026-01-31; intel-opencl-icd 22.43. `bench` and `later`" in text
    assert "| the norm | `norm` | 16 | 128 | 64 | 8192 |" in text and "\nthe matmul: no\n" in text


WINOGRAD = 0.549  # multiply-adds that Winograd's kernel executes, of a convolution's: 16 of 36, and transforms


def stands_for(kernel: KernelJudgement) -> float:
    """The multiply-adds of the operation that a kernel of ours computes."""
    is_convolution = "conv2d" in kernel.name or kernel.name.startswith("conv3x3")
    is_winograd = is_convolution and kernel.threads == 128 and kernel.workgroup_bytes > 15_000
    return kernel.launches * kernel.multiply_adds / (WINOGRAD if is_winograd else 1)


def test_kept_kernels_execute_the_multiply_adds_that_their_operation_needs() -> None:
    """A loop whose counter is not understood counts once, and would make a kernel look fast."""
    for kept in read_figures():
        for row in kept.rows:
            if row.kernels and row.multiply_adds:
                ours = kept.contestant == OURS
                executed = (kernel.launches * kernel.multiply_adds for kernel in row.kernels)
                done = sum(map(stands_for, row.kernels) if ours else executed) / row.multiply_adds
                doubled = ours and row.name.startswith("upsample")  # four taps do what nine would
                least, most = (4 / 9, 5 / 9) if doubled and done < 0.9 else (0.95, 2.2)
                assert least <= done <= most, f"{kept.file_name}, {row.name}: {done:.3f} of what it needs"


def test_a_step_with_packed_weights_stands_beside_the_same_step_without(tmp_path: Path, pages: list[Path]) -> None:
    ours, theirs = made_up_judgements()
    write_report([ours, theirs], [], pages, tmp_path / "figures")
    assert "weights of few bits" not in pages[1].read_text()

    product, norm = kernel("fused_matmul3_kernel", 3000.0, 10), kernel("norm_kernel", 10.0)
    read = dataclasses.replace(kernel("NT_matmul_kernel", 1.0), microseconds={"vector": 1.0, "memory": 1000.0})
    decoding = dataclasses.replace(kernel("fused_matmul3_kernel", 3300.0, 10), cost=Cost(vector=12, multiply_adds=15))
    faster = dataclasses.replace(read, microseconds={"vector": 1.0, "memory": 500.0})
    plain, packed = judgement(NAME, product, read, norm), judgement(f"{NAME}_palette6", decoding, faster, norm)
    write_report([dataclasses.replace(ours, rows=(plain, packed)), theirs], [], pages, tmp_path / "figures")
    text = pages[1].read_text()
    assert "| float16 | 31.0 | 1.00x | 30.01 | 1.00 |\n| palette6 | 33.5 | 1.08x | 33.01 | 0.50 |" in text
    assert "| other matrix products | 30.00 | 33.00, 1.10x | 1.20x |" in text
    assert "| products of one row | 1.00 | 0.50, 0.50x | 1.00x |" in text
    assert "| kernels without weights | 0.01 | 0.01, 1.00x | 1.00x |" in text
    assert "palette6" not in pages[0].read_text()
