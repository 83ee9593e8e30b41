"""Dispatches to one command and turns its errors into exit codes.

Exit codes: 0 done, 2 a mistake of the user's (one line on stderr), 1 a failure of ours (a traceback), 130 interrupted.
"""

import argparse
import importlib
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from mlc_controlnet import __version__
from mlc_controlnet.cli.interrupt import noted_interrupt
from mlc_controlnet.errors import UserError, explain
from mlc_controlnet.runtime.option_text import FORMS

COMMANDS = {
    "build": "compile a model into a bundle, for WebGPU or for this machine",
    "generate": "draw a picture with a native bundle",
    "verify": "check every file of a bundle against its hash",
    "serve": "serve the demo page on this machine",
    "engine": "write the JavaScript engine, for your own web page",
    "train": "train a ControlNet on your own pictures",
    "parity": "compare a compiled model with torch, at any size",
    "sources": "write every kernel as source code for another GPU",
    "tune": "search for faster schedules and write them as tuning records",
    "bench": "measure pictures, operations, components and training",
}

# How argparse tells a text that an option's parser does not take, which it names.
_UNREAD = re.compile(r"argument (?P<option>.+?): invalid (?P<type>\w+) value: (?P<text>.+)", re.DOTALL)

# Commands that must not import torch. TVM's ffi imports torch if it is installed, which costs three seconds and 200 MB;
# drawing a picture needs none of it. An option or subcommand that does need it sets `needs_torch`.
WITHOUT_TORCH = frozenset({"generate", "verify", "bench", "serve", "engine"})

# Commands that Ctrl-C and SIGTERM end although a call into TVM or torch still runs. They start no processes that
# outlive them, and nothing that they write is there before it is whole.
ENDED_AT_ONCE = frozenset({"build", "generate", "parity", "sources"})


def main(arguments: Sequence[str], owns_process: bool = False) -> int:
    """Run one command and return its exit code.

    owns_process: the process ends with this call, so that torch may be blocked for the rest of it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be in the terminal's encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    options.command_line = shlex.join(["python", "-m", "mlc_controlnet", *arguments])  # some results keep it
    needs_torch = getattr(options, "needs_torch", False) or getattr(options, "diffusers", None) is not None
    if owns_process and options.command in WITHOUT_TORCH and not needs_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]  # Python's own way to make an import fail
    # diffusers asks transformers for image processors that nothing here uses, and those complain without torchvision.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    run: Callable[[argparse.Namespace], None] = options.run
    with noted_interrupt(owns_process and options.command in ENDED_AT_ONCE) as interrupt:
        try:
            run(options)
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) or interrupt.is_noted:
                interrupt.tell()
                return interrupt.exit_code
            told = error if isinstance(error, UserError) else explain(error)
            if told is None:
                raise
            print(f"error: {told}", file=sys.stderr)
            return 2
    return 0


def console() -> None:
    """Run the installed script `mlc-controlnet`."""
    sys.exit(main(sys.argv[1:], owns_process=True))


class _Parser(argparse.ArgumentParser):
    """Tells a mistake on one line; argparse puts the list of all options before it."""

    def error(self, message: str) -> NoReturn:
        """End the process."""
        if unread := _UNREAD.fullmatch(message):
            wanted = FORMS.get(unread["type"], unread["type"])
            message = f"{unread['option']}: got {unread['text']}, wanted {wanted}"
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    prog = "python -m mlc_controlnet" if sys.argv[0].endswith("__main__.py") else "mlc-controlnet"
    parser = _Parser(prog=prog, description="Train, build and run a ControlNet.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, summary in COMMANDS.items():
        command = importlib.import_module(f"mlc_controlnet.cli.{name}")
        description = f"{summary[0].upper()}{summary[1:]}."
        command.add_arguments(commands.add_parser(name, help=summary, description=description))
    return parser
