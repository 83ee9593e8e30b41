import dataclasses
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mlc_controlnet.bench.operations.figures import FOLDER, MODEL, ReferenceRates, read_figures
from mlc_controlnet.bench.operations.plot import plot
from mlc_controlnet.bench.operations.report import BEGIN, END, describe_run, table, write_report
from mlc_controlnet.errors import UserError
from mlc_controlnet.locations import SOFTWARE_ADAPTERS
from tests.bench.made_up_figures import made_up_figures


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(f"# Before\n{BEGIN}\nold\n{END}\n# After\n")
    return path


def test_a_table_has_times_ratio_and_rates_of_every_row():
    lines = list(table(made_up_figures()))
    assert "| matmul, 64x64 | 21.0 | 42.0 | 2.00x | 47.6 | 48% |" in lines
    assert "| norm, 64x64 | 16.0 | 8.00 | 0.50x | 6.25 | 50% |" in lines


def test_a_table_names_device_kind_versions_and_command():
    head = next(iter(table(made_up_figures(kind="software GPU"))))
    for words in (
        "software GPU: Model T, on Abacus",
        "onnxruntime-web 1.30",
        "100 GFLOP/s",
        "bench kernels --rounds 3",
    ):
        assert words in head


def test_rows_of_several_runs_have_several_references():
    figures = made_up_figures()
    first, *others = figures.rows
    slower = dataclasses.replace(first, reference=ReferenceRates(gflops=50.0, gigabytes_per_second=10.0))
    assert "3 rounds in turns, the device's clock; large matmul 100 GFLOP/s, large copy 10.0 GB/s." in describe_run(
        figures
    )
    mixed = describe_run(dataclasses.replace(figures, rows=(slower, *others)))
    assert "large matmul 50.0 to 100 GFLOP/s, large copy 10.0 GB/s." in mixed


def test_a_note_on_a_peer_is_marked_and_printed():
    figures = made_up_figures()
    noted = dataclasses.replace(figures.rows[1], note="the peer computes something else: -4 dB")
    lines = list(table(dataclasses.replace(figures, rows=(figures.rows[0], noted))))
    assert any(line.startswith("| matmul, 64x64\\* |") for line in lines)
    assert lines[-1] == "\\* matmul, 64x64: the peer computes something else: -4 dB."


def test_a_peer_that_failed_at_a_row_has_no_times_there(readme: Path):
    figures = made_up_figures()
    failed = dataclasses.replace(
        figures.rows[2], times={"ours": figures.rows[2].times["ours"]}, note="onnxruntime-web was ended by SIGKILL"
    )
    figures = dataclasses.replace(figures, rows=(*figures.rows[:2], failed))
    lines = list(table(figures))
    assert "| norm, 64x64\\* | 16.0 | - | - | 6.25 | 50% |" in lines
    assert lines[-1] == "\\* norm, 64x64: onnxruntime-web was ended by SIGKILL."
    assert figures.ratios("onnxruntime-web") == {"matmul": 2.0}
    write_report([figures, dataclasses.replace(figures, subject=MODEL)], readme, readme.parent / "figures")
    assert "| **2.00x** | 2.00x | 2.00x | 1 of 1 |" in readme.read_text()


def test_peak_memory_is_a_column_where_processes_were_measured():
    figures = made_up_figures(kind="processor")
    times = {
        name: dataclasses.replace(timing, peak_memory_mib=peak)
        for (name, timing), peak in zip(figures.rows[1].times.items(), (100.4, 250.0), strict=True)
    }
    figures = dataclasses.replace(figures, rows=(figures.rows[0], dataclasses.replace(figures.rows[1], times=times)))
    lines = list(table(figures))
    assert lines[2].endswith("| relative rate | peak memory, MiB: ours; onnxruntime-web |")
    assert lines[-1] == "| matmul, 64x64 | 21.0 | 42.0 | 2.00x | 47.6 | 48% | 100; 250 |"
    assert not any("peak" in line for line in table(made_up_figures(kind="processor")))


def test_a_report_replaces_its_section_and_nothing_else(readme: Path):
    kept = [made_up_figures(), made_up_figures(MODEL)]
    write_report(kept, readme, readme.parent / "figures")
    first = readme.read_text()
    assert first.startswith(f"# Before\n{BEGIN}\n") and first.endswith(f"\n{END}\n# After\n")
    assert (
        "old" not in first and "| matmul, 64x64; Model T, Chromium, float32, against onnxruntime-web | 21.0 |" in first
    )
    write_report(kept, readme, readme.parent / "figures")
    assert readme.read_text() == first


def test_the_summary_counts_the_operations_that_are_faster(readme: Path):
    write_report([made_up_figures()], readme, readme.parent / "figures")
    label = "Model T, Chromium, float32, against onnxruntime-web"
    assert f"| {label} | **1.00x** | 0.50x | 2.00x | 1 of 2 |" in readme.read_text()  # 2x and 0.5x


def test_every_file_that_the_report_links_to_is_written(readme: Path):
    written = write_report([made_up_figures()], readme, readme.parent / "figures")
    for name in ("figures/kernels-light.svg", "figures/kernels-dark.svg"):
        assert name in readme.read_text()
        assert readme.parent / name in written


def test_a_readme_without_marks_is_not_changed(readme: Path):
    readme.write_text("# No marks\n")
    with pytest.raises(UserError, match="both marks"):
        write_report([made_up_figures()], readme, readme.parent / "figures")
    assert readme.read_text() == "# No marks\n"
    assert not (readme.parent / "figures").exists()


def test_the_same_figures_give_the_same_plot():
    kernels = [made_up_figures(), made_up_figures(name="Model A", kind="software GPU")]
    light, dark = plot(kernels, "light"), plot(kernels, "dark")
    assert light == plot(kernels, "light") != dark
    for drawn in (light, dark):
        words = " ".join(ElementTree.fromstring(drawn).itertext())
        assert "matmul, 64x64" in words and "Model A" in words


def test_the_repositorys_report_is_that_of_its_figures(tmp_path: Path):
    text = SOFTWARE_ADAPTERS.read_text(encoding="utf-8")
    copy = tmp_path / "docs" / SOFTWARE_ADAPTERS.name
    folder = tmp_path / FOLDER.relative_to(SOFTWARE_ADAPTERS.parent.parent)
    for parent in (copy.parent, folder):
        parent.mkdir(parents=True)
    copy.write_text(text, encoding="utf-8")
    write_report(read_figures(), copy, folder)
    assert copy.read_text(encoding="utf-8") == text, "run python -m mlc_controlnet bench report"
    assert (folder / "README.md").read_text() == (FOLDER / "README.md").read_text()
