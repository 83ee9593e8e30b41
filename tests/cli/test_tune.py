import argparse
from pathlib import Path

import pytest

from mlc_controlnet.cli import tune as command
from mlc_controlnet.cli.main import main


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(arguments)


def test_defaults_are_the_bundled_model_on_llvm() -> None:
    options = parse()
    assert (options.target, options.model, options.out) == ("llvm", "circles", Path("tuning_db"))


@pytest.mark.parametrize(
    "arguments,words",
    [
        (("--target", "webgpu"), "--target: got 'webgpu', wanted one of llvm"),
        (("--tasks", "0"), "--tasks: got 0, wanted 1 or more"),
        (("--model", "no-such-model"), "no-such-model"),
    ],
    ids=["target", "tasks", "model"],
)
def test_a_mistake_writes_nothing(arguments, words, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", *arguments, "--out", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
