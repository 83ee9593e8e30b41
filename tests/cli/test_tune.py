import argparse
from pathlib import Path

import pytest

from mlc_controlnet.cli import build_options
from mlc_controlnet.cli import tune as command
from mlc_controlnet.cli.main import main
from mlc_controlnet.errors import UserError
from tests.tuning.operations import LLVM, make_task


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(arguments)


def test_defaults_are_the_bundled_model_on_llvm() -> None:
    options = parse()
    assert (options.target, options.model, options.out) == ("llvm", "circles", None)


def test_records_go_where_builds_of_a_checkout_find_them() -> None:
    """Wherever the command is run."""
    assert command.DEFAULT_RECORDS == build_options.TUNING_DB and command.DEFAULT_RECORDS.is_absolute()


@pytest.mark.parametrize(
    "arguments,words",
    [
        (("--target", "metal"), "--target: got 'metal', wanted one of llvm, webgpu"),
        (("--target", "webgpu", "--runner", "local"), "--runner: got 'local', wanted one for webgpu: compilers"),
        (("--target", "webgpu", "--chip", "navi99"), "--chip: got 'navi99'"),
        (("--chip", "navi31"), "--target llvm: got --chip or --dtype float16 beside it"),
        (("--runner", "rpc", "--key", "epyc"), "--tracker: got None, wanted HOST:PORT of TVM's RPC tracker"),
        (
            ("--runner", "rpc", "--tracker", "host:http", "--key", "epyc"),
            "--tracker: got 'host:http', wanted HOST:PORT",
        ),
        (("--runner", "rpc", "--tracker", "localhost:1"), "--key: got None, wanted one word"),
        (("--runner", "rpc", "--tracker", "localhost:1", "--key", "epyc"), "got Connection refused, wanted TVM's RPC"),
        (("--key", "epyc"), "--runner local: got --tracker or --key beside it, wanted neither"),
        (("--target", "webgpu", "--runner", "rpc"), "--runner: got 'rpc', wanted one for webgpu: compilers"),
        (("--target", "webgpu", "--runner", "browser", "--chip", "navi31"), "--runner browser: got --chip beside it"),
        (("--target", "webgpu", "--runner", "browser", "--port", "70000"), "port 70000: got "),
        (
            ("--target", "webgpu", "--cpu", "x86-64-v3"),
            "--cpu: got --runner compilers beside it, wanted --runner local",
        ),
        (("--cpu", "cortex-a53"), "--cpu: got 'cortex-a53', wanted one of "),
        (("--port", "8000"), "--port: got --runner local beside it, wanted --runner browser"),
        (("--trials", "0"), "--trials: got 0, wanted 1 or more"),
        (("--time-limit", "nan"), "--time-limit: got nan, wanted 1 or more"),
        (("--merge", "nowhere"), "--merge: got nowhere, which is no folder"),
        (("--tasks", "0"), "--tasks: got 0, wanted 1 or more"),
        (("--model", "no-such-model"), "no-such-model"),
    ],
    ids=lambda value: "" if isinstance(value, str) else value[0],
)
def test_a_mistake_writes_nothing(arguments, words, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", *arguments, "--out", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_records_is_told_before_the_model_is_captured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_tasks", lambda *_: pytest.fail("the model was captured"))
    (tmp_path / "notes").touch()
    assert main(["tune", "--out", str(tmp_path / "notes")]) == 2
    assert f"--out: got {tmp_path}/notes, where {tmp_path}/notes is a file" in capsys.readouterr().err


def test_only_what_the_user_names_is_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    monkeypatch.setattr("mlc_controlnet.tuning.tasks.find_tasks", lambda *_: [task])
    monkeypatch.setattr("mlc_controlnet.capture.capture", lambda *_: argparse.Namespace(module=None))
    monkeypatch.setattr("mlc_controlnet.passes.pipeline.clean", lambda captured: captured)
    monkeypatch.setattr("mlc_controlnet.passes.quantize.keep_float16.keep_float16", lambda cleaned: cleaned)
    monkeypatch.setattr("mlc_controlnet.passes.pipeline.Pipeline.run", lambda *_, **__: None)
    assert command._tasks(parse("--only", "layer_norm", "--only", "matmul"), LLVM) == [task]
    with pytest.raises(UserError, match=r"--only: got attention, wanted a part of a name: matmul_cpu"):
        command._tasks(parse("--only", "attention"), LLVM)


def test_the_report_of_a_folder_without_records_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--report", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == ""
