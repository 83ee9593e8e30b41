"""What build.py takes on its command line, and what it says while it works."""

import argparse
import contextlib
import dataclasses
import errno
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlc_controlnet.checkpoint import model_name
from mlc_controlnet.components import COMPONENTS
from mlc_controlnet.config import DTYPES, PREDICTION_TYPES, TARGETS, BuildConfig, LoraOption
from mlc_controlnet.environment import explain
from mlc_controlnet.errors import UserError

NO_SPACE = os.strerror(errno.ENOSPC)
ROOT = Path(__file__).parent.parent


def parse_options(arguments: Sequence[str]) -> BuildConfig:
    """Resolve the command line into a BuildConfig.

    Raises:
        UserError: an option has a value that there is no build for.
    """
    parser = argparse.ArgumentParser(prog="build.py", description="Build a bundle from a model.")
    parser.add_argument("--target", required=True, help=f"one of {', '.join(TARGETS)}")
    parser.add_argument(
        "--model",
        default="circles",
        help="a bundled model, a diffusers folder, a file, or a hub id org/name[@revision]",
    )
    parser.add_argument(
        "--controlnet",
        action="append",
        default=[],
        metavar="PATH",
        help="folder, file or hub id; default: the model's own",
    )
    parser.add_argument(
        "--lora", action="append", default=[], metavar="FILE[:WEIGHT]", help="merge a LoRA into the weights; repeat it"
    )
    parser.add_argument(
        "--component", action="append", metavar="NAME", help=f"build this one alone; repeat it: {', '.join(COMPONENTS)}"
    )
    parser.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="the model's own, or CLIP's for a single file")
    parser.add_argument("--prediction-type", help=f"what the UNet predicts: {', '.join(PREDICTION_TYPES)}")
    parser.add_argument(
        "--dtype",
        action="append",
        help=f"a library's dtype, {' or '.join(DTYPES)}; repeat it for both; default: both for webgpu, else float32",
    )
    parser.add_argument("--height", type=int, help="pixels; default: what the model was trained on")
    parser.add_argument("--width", type=int, help="pixels; default: what the model was trained on")
    parser.add_argument("--out", type=Path, help="the bundle's folder; default: dist/<model>-<target>")
    parser.add_argument("--tuning-db", type=Path, default=ROOT / "tuning_db", help="tuning records, a folder a target")
    parser.add_argument("--dump-ir", type=Path, metavar="FOLDER", help="write the IRModule after each phase there")
    options = parser.parse_args(arguments)
    dtypes = options.dtype or (TARGETS[options.target].dtypes if options.target in TARGETS else ())
    if len(options.controlnet) > 1:
        raise UserError(
            "--controlnet",
            f"{len(options.controlnet)} of them",
            "one: several at a time are not supported yet",
            "build a bundle for each",
        )
    name = model_name(options.model)
    out = ROOT / "dist" / f"{name}-{options.target}" if options.out is None else options.out
    return BuildConfig(
        model=options.model,
        target=options.target,
        dtypes=tuple(dict.fromkeys(dtypes)),
        every_dtype=options.dtype is not None,
        out=out,
        tuning_db=options.tuning_db,
        height=options.height,
        width=options.width,
        dump_ir=options.dump_ir,
        controlnet=options.controlnet[0] if options.controlnet else None,
        loras=tuple(LoraOption.parse(text) for text in options.lora),
        components=tuple(options.component or COMPONENTS),
        tokenizer=options.tokenizer,
        prediction_type=options.prediction_type,
    )


class Stages:
    """Prints the resolved configuration, then one line a stage: its name when it starts, its seconds when it ends."""

    def __init__(self, config: BuildConfig) -> None:
        self.started = time.monotonic()
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            text = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            print(f"  {field.name:<15} {text}", flush=True)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        print(f"{name} ...", end=" ", flush=True)
        started = time.monotonic()
        try:
            yield
        except BaseException:
            print(flush=True)
            raise
        print(f"{time.monotonic() - started:.1f} s", flush=True)

    @property
    def summary(self) -> str:
        """How long the build took so far, and the most memory that this process held, in decimal gigabytes."""
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux gives KiB
        return f"{time.monotonic() - self.started:.0f} s, at most {peak_bytes / 1e9:.1f} GB of memory"


@dataclass
class Outcome:
    exit_code: int = 0


@contextlib.contextmanager
def report_errors() -> Iterator[Outcome]:
    """Turn a user's mistake into one line and exit code 2, and a failure of ours into a traceback and 1."""
    outcome = Outcome()
    try:
        yield outcome
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        outcome.exit_code = 2
    except Exception as error:
        outcome.exit_code = 1
        if NO_SPACE in str(error):  # of TVM's and the linker's temporary files, or of the page
            print(f"error: a full disk ({NO_SPACE}); make room, also in {tempfile.gettempdir()}", file=sys.stderr)
            outcome.exit_code = 2
        elif (explained := explain(error)) is not None:
            print(f"error: {explained}", file=sys.stderr)
            outcome.exit_code = 2
        else:
            traceback.print_exc()
