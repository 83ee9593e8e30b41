"""`train`: train a ControlNet, prepare its data, draw the plot of a run."""

import argparse
import contextlib
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path

from mlc_controlnet.cli.starting import TRAINS, say_starting

HINT_WIDTHS = (16, 32, 96, 256)  # ControlNet's own; the bundled model has (8, 16, 24, 32)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `train --config ...` itself, and its subcommands."""
    parser.add_argument("--config", help="a preset (see `train presets`) or a YAML file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.OPTION=VALUE",
        help="replace one value of the configuration; can be repeated; see `train options`",
    )
    parser.add_argument(
        "--output", type=Path, help="folder for checkpoints, logs and the result; default: the configuration's out"
    )
    parser.set_defaults(run=_train)
    commands = parser.add_subparsers(dest="train_command", metavar="command")

    add_control = commands.add_parser("add-control", help="write a new ControlNet that changes nothing yet")
    add_control.add_argument(
        "--base", required=True, help="a folder in diffusers' layout, an original file, a bundled model or a hub id"
    )
    add_control.add_argument("--output", required=True, type=Path, help="folder for the new ControlNet")
    add_control.add_argument("--hint-channels", type=int, default=3, help="channels of the control image; default: 3")
    add_control.add_argument(
        "--hint-widths",
        type=_widths,
        default=HINT_WIDTHS,
        metavar="N,N,...",
        help="widths of the layers that embed the control image; default: 16,32,96,256",
    )
    add_control.add_argument("--seed", type=int, default=0, help="for the random weights of those layers; default: 0")
    add_control.set_defaults(run=_add_control)

    convert = commands.add_parser("convert", help="write a fill50k set as WebDataset shards")
    convert.add_argument("folder", type=Path, help="folder with prompt.json, source/ and target/")
    convert.add_argument("--output", required=True, type=Path, help="folder for the shards")
    convert.add_argument("--shard-samples", type=int, default=1000, help="samples per shard; default: 1000")
    convert.add_argument(
        "--image-extension", default="jpg", help="file type of the pictures; image.png keeps PNGs exact; default: jpg"
    )
    convert.set_defaults(run=_convert)

    plot = commands.add_parser("plot", help="draw the losses and the generated pictures of a run")
    plot.add_argument("folder", type=Path, help="the run's out folder; the run may be unfinished")
    plot.add_argument("--output", type=Path, help="file to write, .png or .svg; default: curve.png in the run's folder")
    plot.add_argument(
        "--theme", choices=("light", "dark"), default="light", help="background of the page it is for; default: light"
    )
    plot.set_defaults(run=_plot)

    commands.add_parser("presets", help="list the presets that --config takes").set_defaults(run=_presets)
    commands.add_parser("options", help="list every option with its default and its meaning").set_defaults(run=_options)

    circles = commands.add_parser("circles", help="train the bundled model from random weights, in three stages")
    circles.add_argument("--out", type=Path, required=True, help="folder for the data, the stages and the model")
    circles.add_argument("--data-only", action="store_true", help="write only the data set, in fill50k's format")
    circles.set_defaults(run=_circles)

    doodle = commands.add_parser("doodle", help="train a model that turns scribbles into pictures, in hours; resumable")
    doodle.add_argument("--out", type=Path, required=True, help="folder for the data, the stages and the model")
    doodle.add_argument("--packages", type=Path, help="folder with the packages' archives; default: OUT/packages")
    doodle.add_argument(
        "--share", type=float, default=1.0, help="share of every stage's steps, to try the recipe out; default: 1"
    )
    doodle.add_argument("--data-only", action="store_true", help="only fetch and render the drawings")
    doodle.add_argument("--judge", action="store_true", help="only judge the finished model, and draw its sheet")
    doodle.set_defaults(run=_doodle)


def _train(options: argparse.Namespace) -> None:
    from mlc_controlnet.errors import UserError
    from mlc_controlnet.train.config_file import load_config, preset_names

    if options.config is None:
        wanted = f"a preset ({', '.join(preset_names())}) or a YAML file"
        raise UserError("--config", "nothing", wanted, "for example train --config circles")
    overrides = list(options.set)
    if options.output is not None:
        overrides.append(f"out={options.output}")
    config = load_config(options.config, overrides)
    say_starting(TRAINS)

    from mlc_controlnet.train.trainer import train  # imports torch, for seconds

    train(config, _log)


def _add_control(options: argparse.Namespace) -> None:
    from mlc_controlnet.train.add_control import add_control

    folder = add_control(options.base, options.output, options.hint_channels, options.hint_widths, options.seed)
    _log(f"{folder}: a ControlNet for {options.base}; the UNet's output with it equals the one without, bit for bit")


def _convert(options: argparse.Namespace) -> None:
    from mlc_controlnet.train.data.fill50k_to_shards import fill50k_to_shards

    samples, shards, skipped = fill50k_to_shards(
        options.folder, options.output, options.shard_samples, options.image_extension, _log
    )
    _log(f"{options.output}: {samples} samples in {shards} shards, {skipped} skipped")


def _plot(options: argparse.Namespace) -> None:
    from mlc_controlnet.train.plot import write_plot

    output = options.folder / "curve.png" if options.output is None else options.output
    _log(f"{write_plot(options.folder, output, options.theme)}")


def _presets(options: argparse.Namespace) -> None:
    from mlc_controlnet.train.config_file import PRESETS, preset_names

    for name in preset_names():
        first = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
        _log(f"{name:<16} {first.removeprefix('# ')}")


def _options(options: argparse.Namespace) -> None:
    from mlc_controlnet.train.config_file import documented_options

    for name, default, meaning in documented_options():
        _log(f"{name:<34} {_shown(default):<20} {meaning}")


def _shown(value: object) -> str:
    """Write a default as `--set` reads it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value)) if isinstance(value, tuple) else str(value) or "''"


def _circles(options: argparse.Namespace) -> None:
    say_starting(TRAINS)

    from mlc_controlnet.train.circles import recipe
    from mlc_controlnet.train.process import termination

    if options.data_only:
        recipe.write_data(options.out / "data", recipe.Recipe(), _log)
        return
    recipe.write_data(options.out / "data", recipe.Recipe(), _log)
    model = options.out / "circles"
    with termination() as asked_to_stop, _stopping_early(asked_to_stop):
        recipe.write_model(recipe.train_circles(options.out, recipe.Recipe(), _log, asked_to_stop), model)
    if asked_to_stop.is_set():
        return
    circles = recipe.unseen_circles(64)
    for scale in (1.0, 0.0):
        quality, _ = recipe.evaluate(recipe.load_model(model), circles, conditioning_scale=scale)
        _log(f"64 unseen circles, conditioning scale {scale:g}: {quality}")
    command = shlex.join(["build", "--model", str(model), "--target", "llvm"])
    _log(f"{model}: build it with python -m mlc_controlnet {command}")


def _doodle(options: argparse.Namespace) -> None:
    from mlc_controlnet.errors import UserError

    if not 0 < options.share <= 1:
        raise UserError("--share", str(options.share), "more than 0 and at most 1", "leave it out for the whole recipe")
    model = options.out / "doodle"
    if options.judge and not model.is_dir():
        raise UserError(str(model), "no model", "a finished run", "run the same command without --judge first")
    say_starting(TRAINS)

    from mlc_controlnet.train.circles.recipe import load_model
    from mlc_controlnet.train.doodle import recipe
    from mlc_controlnet.train.process import termination

    plan = recipe.Recipe() if options.share == 1 else recipe.Recipe().shortened(options.share)
    recipe.echo(plan, _log)
    with termination() as asked_to_stop:
        run = recipe.Run(options.out, plan, _log, options.packages, asked_to_stop)
        if options.data_only:
            return
        with _stopping_early(asked_to_stop):
            if not options.judge:
                run.train()
            run.judge(load_model(model))
    if asked_to_stop.is_set():
        return
    command = shlex.join(["build", "--model", str(model), "--target", "llvm"])
    _log(f"{model}: build it with python -m mlc_controlnet {command}")


@contextlib.contextmanager
def _stopping_early(asked_to_stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C ask for an early stop, as SIGTERM does, and tell what is kept; then raise KeyboardInterrupt."""
    from mlc_controlnet.train.circles.loop import Stopped
    from mlc_controlnet.train.process import ctrl_c_asks

    with ctrl_c_asks(asked_to_stop) as pressed:
        try:
            yield
        except Stopped as stopped:
            _log(str(stopped))
    if pressed.is_set():
        raise KeyboardInterrupt


def _widths(text: str) -> tuple[int, ...]:
    return tuple(int(width) for width in text.split(","))


def _log(line: str) -> None:
    print(line, flush=True)
