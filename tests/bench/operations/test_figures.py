import dataclasses
from pathlib import Path

import pytest

from mlc_controlnet.bench.operations.figures import MODEL, ReferenceRates, read_figures, write_figures
from mlc_controlnet.errors import UserError
from tests.bench.made_up_figures import PEER, made_up_figures, timing


def test_a_row_counts_by_its_median():
    figures = made_up_figures()
    assert figures.median_ms(figures.rows[1], "ours") == 21
    assert figures.ratio(figures.rows[1], PEER) == 2


def test_the_wall_clock_counts_where_a_contestant_has_no_other():
    figures = dataclasses.replace(made_up_figures(), clock="wall")
    assert figures.ratio(figures.rows[1], PEER) == pytest.approx(43 / 22)


def test_a_peer_that_had_turns_with_ours_alone_is_compared_with_those():
    """Ours was slowed down in the rounds with another peer."""
    figures = dataclasses.replace(made_up_figures(), clock="wall")
    row = figures.rows[1]
    times = {
        "ours": timing(20.0, 20.0, 80.0, 80.0),
        PEER: dataclasses.replace(timing(41.0, 41.0), ours_wall_ms=(21, 21)),
    }
    assert figures.ratio(dataclasses.replace(row, times=times), PEER) == 2


def test_the_reference_is_arithmetic_or_memory_whichever_takes_longer():
    figures = made_up_figures()
    _, matmul, norm = figures.rows
    assert matmul.reference_ms == 10  # 1 GFLOP at 100 GFLOP/s; 20 MB at 10 GB/s would take 2 ms
    assert norm.reference_ms == 8  # 80 MB at 10 GB/s; 0.1 GFLOP at 100 GFLOP/s would take 1 ms
    assert figures.relative_rate(norm) == 0.5


def test_figures_are_kept_whole(tmp_path: Path):
    write_figures(made_up_figures(), folder=tmp_path)
    assert read_figures(tmp_path) == [made_up_figures()]


def test_a_new_run_replaces_the_last_on_the_same_device(tmp_path: Path):
    later = dataclasses.replace(made_up_figures(), date="2026-02-01")
    assert write_figures(made_up_figures(), folder=tmp_path) == write_figures(later, folder=tmp_path)
    assert read_figures(tmp_path) == [later]


def test_rows_that_are_not_measured_again_stay(tmp_path: Path):
    whole = made_up_figures()
    part = dataclasses.replace(whole, rows=(whole.rows[0], dataclasses.replace(whole.rows[2], ours_db=99.0)))
    write_figures(whole, folder=tmp_path)
    write_figures(part, folder=tmp_path)
    (kept,) = read_figures(tmp_path)
    assert kept.rows == (*whole.rows[:2], part.rows[1])


def test_a_row_keeps_the_reference_of_its_own_run(tmp_path: Path):
    whole = made_up_figures()
    on_a_slow_day = ReferenceRates(gflops=50.0, gigabytes_per_second=10.0)
    part = dataclasses.replace(
        whole, rows=tuple(dataclasses.replace(whole.rows[i], reference=on_a_slow_day) for i in (0, 2))
    )
    write_figures(whole, folder=tmp_path)
    write_figures(part, folder=tmp_path)
    (kept,) = read_figures(tmp_path)
    assert kept.relative_rate(kept.rows[1]) == whole.relative_rate(whole.rows[1])
    assert [row.reference == on_a_slow_day for row in kept.rows] == [True, False, True]


def test_rows_are_kept_in_the_benchmarks_order(tmp_path: Path):
    whole = made_up_figures()
    write_figures(dataclasses.replace(whole, rows=(whole.rows[0], whole.rows[2])), folder=tmp_path)
    write_figures(dataclasses.replace(whole, rows=whole.rows[:2]), order=("matmul", "norm"), folder=tmp_path)
    assert read_figures(tmp_path) == [whole]


def test_rows_of_another_version_do_not_stay(tmp_path: Path):
    whole = made_up_figures()
    part = dataclasses.replace(whole, rows=whole.rows[:1], versions={"apache-tvm": "0.28"})
    write_figures(whole, folder=tmp_path)
    write_figures(part, folder=tmp_path)
    assert read_figures(tmp_path) == [part]


def test_a_newer_driver_or_browser_is_the_same_device():
    figures = made_up_figures(name="llvmpipe: Mesa 25.0.7 (LLVM 15.0.6)")
    newer = dataclasses.replace(
        figures,
        device=dataclasses.replace(figures.device, name="llvmpipe: Mesa 26.1 (LLVM 20)", host="Chromium 200.1.2"),
    )
    assert figures.file_name == newer.file_name == "kernels-llvmpipe-chromium-float32.json"


def test_a_real_gpu_comes_first(tmp_path: Path):
    for figures in (made_up_figures(kind="software GPU", name="A"), made_up_figures(MODEL, name="Z")):
        write_figures(figures, folder=tmp_path)
    assert [figures.device.kind for figures in read_figures(tmp_path)] == ["GPU", "software GPU"]


def test_a_damaged_file_is_named(tmp_path: Path):
    path = write_figures(made_up_figures(), folder=tmp_path)
    path.write_text(path.read_text().replace('"is_reduced": false', '"is_reduced": 0'))
    with pytest.raises(UserError, match=path.name):
        read_figures(tmp_path)
