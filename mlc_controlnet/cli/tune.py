"""`tune`: search for faster schedules of a model's heaviest operations and keep them as tuning records."""

import argparse
import contextlib
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlc_controlnet.cli.starting import BUILDS, say_starting
from mlc_controlnet.errors import UserError, check_one_of
from mlc_controlnet.files import check_writable_folder
from mlc_controlnet.instruction_sets import INSTRUCTION_SETS, host_instruction_sets, host_machine, without_any
from mlc_controlnet.locations import DIST, IS_CHECKOUT, TUNING_DB

if TYPE_CHECKING:
    from mlc_controlnet.tuning.judge import Judge
    from mlc_controlnet.tuning.tasks import Task

# An installed package's own folder may be read-only, and ends with its next release.
DEFAULT_RECORDS = TUNING_DB if IS_CHECKOUT else Path("tuning_db")
LOCAL, RPC, COMPILERS, BROWSER = "local", "rpc", "compilers", "browser"
RUNNERS = {"llvm": (LOCAL, RPC), "webgpu": (COMPILERS, BROWSER)}  # the first is the default


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", default="llvm", help=f"what to tune for: {', '.join(RUNNERS)}; default: llvm")
    parser.add_argument(
        "--runner",
        help="what judges candidates: local, this machine's processor; rpc, processors of other machines; compilers, "
        "which predict times on GPUs that are not there; browser, the GPU of whoever opens the page whose address is "
        "printed; default: local or compilers, as the target has",
    )
    parser.add_argument("--tracker", metavar="HOST:PORT", help="of --runner rpc: TVM's RPC tracker")
    parser.add_argument("--key", help="of --runner rpc: the servers that measure, all of one kind of machine")
    parser.add_argument("--port", type=int, help="of --runner browser: its page's; default: any free one")
    parser.add_argument(
        "--cpu",
        metavar="NAME",
        help=f"of --runner local: the instruction set to tune for, one of {', '.join(INSTRUCTION_SETS)} that this "
        "machine's processor has; default: the best of them",
    )
    parser.add_argument(
        "--chip",
        action="append",
        default=[],
        help="of --runner compilers, as for `bench compilers`; of several, what wins on the geometric mean and loses "
        "nowhere; can be repeated; default: navi31",
    )
    parser.add_argument("--model", default="circles", help="a bundled model or a diffusers folder; default: circles")
    parser.add_argument(
        "--step",
        action="store_true",
        help="instead of a model, a step of Stable Diffusion 1.5 with a ControlNet at 512x512, without values",
    )
    parser.add_argument("--dtype", default="float32", help="of weights and activations; default: float32")
    parser.add_argument("--tasks", type=int, default=16, help="how many of the heaviest operations; default: 16")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PART",
        help="only operations with this in their name, such as attention; can be repeated",
    )
    parser.add_argument("--trials", type=int, default=64, help="of each operation; default: 64")
    parser.add_argument("--time-limit", type=float, default=math.inf, metavar="SECONDS", help="begin no trial after it")
    parser.add_argument("--seed", type=int, default=0, help="of the search; default: 0")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where to add the records, in folders of targets and families; default: tuning_db, which in a checkout "
        "is what builds use",
    )
    parser.add_argument(
        "--merge",
        type=Path,
        metavar="FOLDER",
        help="only add the records of another such folder: the faster for each device, measured before predicted",
    )
    parser.add_argument(
        "--recheck",
        action="store_true",
        help="only judge the records of this device or of the chips again, and take out those that are not clearly "
        "faster than the rules; what is measured, twice each: best on a machine that does nothing else",
    )
    parser.add_argument(
        "--report",
        nargs="?",
        const="",
        metavar="PICTURE",
        help="only show the records of --out: before and after, and what is skipped; default: those that builds use; "
        "with the name of an .svg or a .png, draw them too",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Search and add records, or merge or show those that there are.

    Raises:
        UserError: an option has a value that cannot be, there is no such model, or a compiler is missing.
    """
    if options.report is not None:
        _report(options)
        return
    if options.out is None:
        options.out = DEFAULT_RECORDS
    if options.merge is not None:
        _merge(options)
    else:
        runner = check_options(options)
        check_writable_folder(options.out, "--out")
        say_starting(BUILDS)
        _search(options, runner)


def _report(options: argparse.Namespace) -> None:
    from mlc_controlnet.bench.compilers.chips import CHIPS
    from mlc_controlnet.tuning.report import report_lines

    folder = TUNING_DB if options.out is None else options.out
    check_folder("--out", folder)
    ceilings = {name: chip.teraflops for chip in CHIPS.values() for name in (chip.name, chip.title)}
    if options.report:
        from mlc_controlnet.tuning.plot import write_report

        print(write_report(folder, ceilings, Path(options.report)))
    print("\n".join(report_lines(folder, ceilings)))


def _merge(options: argparse.Namespace) -> None:
    from mlc_controlnet.tuning.records import merge_all

    check_folder("--merge", options.merge)
    print("\n".join(merge_all(options.merge, options.out, options.command_line)))


def _search(options: argparse.Namespace, runner: str) -> None:
    """Search, or judge the records that there are once more."""
    from mlc_controlnet.passes.schedule.tuning_records import MEASURED
    from mlc_controlnet.tuning.recheck import recheck
    from mlc_controlnet.tuning.tune import TuneSettings, tune

    with contextlib.ExitStack() as stack:
        if runner == BROWSER:
            judge, tasks = _in_browsers(options, stack)
        else:
            judge, tasks = {LOCAL: _on_processor, RPC: _on_servers, COMPILERS: _by_compilers}[runner](options)
        families = list(dict.fromkeys(judge.families.values()))
        folder = options.out / options.target
        where = f"{'measuring on' if judge.how == MEASURED else 'predicting for'} {' and '.join(judge.families)}"
        print(f"{where}; records go to {' and '.join(str(folder / name) for name in families)}", flush=True)
        if options.recheck:
            for line in recheck(tasks, judge, folder, options.command_line):
                print(line, flush=True)
            return
        settings = TuneSettings(
            tasks=options.tasks,
            trials=options.trials,
            seconds=options.time_limit,
            seed=options.seed,
            folder=folder,
            journal=DIST / "tuning" / f"{options.target}-{'-'.join(families)}.jsonl",
            command=options.command_line,
        )
        for line in tune(tasks, judge, settings):
            print(line, flush=True)
    if options.out.resolve() != TUNING_DB.resolve() and any((folder / name).is_dir() for name in families):
        print(
            f"build --tuning-db {options.out} uses them; tune --merge {TUNING_DB} --out {options.out} adds the others"
        )


def check_folder(option: str, folder: Path) -> None:
    """Raise UserError unless `folder` is one."""
    if not folder.is_dir():
        raise UserError(option, f"{folder}, which is no folder", "a folder of tuning records", "name one that exists")


def check_options(options: argparse.Namespace) -> str:
    """Return the runner. Raises UserError for a value that cannot be."""
    if options.target not in RUNNERS:
        raise UserError("--target", repr(options.target), f"one of {', '.join(RUNNERS)}", "tune for one of these")
    runner: str = options.runner or RUNNERS[options.target][0]
    if runner not in RUNNERS[options.target]:
        known = ", ".join(RUNNERS[options.target])
        raise UserError("--runner", repr(runner), f"one for {options.target}: {known}", "choose one of these")
    check_one_of("--dtype", options.dtype, ("float32", "float16"))
    if options.target == "llvm" and (options.chip or options.dtype != "float32"):
        raise UserError("--target llvm", "--chip or --dtype float16 beside it", "neither", "leave it out")
    if runner != RPC and (options.tracker or options.key):
        raise UserError(
            f"--runner {runner}", "--tracker or --key beside it", "neither", "leave it out, or --runner rpc"
        )
    if runner != LOCAL and options.cpu is not None:
        raise UserError("--cpu", f"--runner {runner} beside it", "--runner local", "leave it out")
    if options.cpu is not None:
        check_one_of("--cpu", options.cpu, host_instruction_sets())
    if runner == RPC:
        tracker_address(options.tracker)
        if not options.key or options.key.split() != [options.key]:
            raise UserError("--key", repr(options.key), "one word, the key of the servers", f"--key {host_machine()}")
    if runner == BROWSER and options.chip:
        raise UserError("--runner browser", "--chip beside it", "none: the browser names its GPU", "leave it out")
    if runner != BROWSER and options.port is not None:
        raise UserError("--port", f"--runner {runner} beside it", "--runner browser", "leave it out")
    for name in ("tasks", "trials", "time_limit"):
        if not getattr(options, name) >= 1:
            got, option = str(getattr(options, name)), f"--{name.replace('_', '-')}"
            raise UserError(option, got, "1 or more", "leave it out for the default")
    return runner


def tracker_address(text: str | None) -> tuple[str, int]:
    """Return host and port of `--tracker`. Raises UserError if it is not of this form."""
    host, _, port = (text or "").rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        remedy = "--tracker 127.0.0.1:9190; python -m tvm.exec.rpc_tracker starts one"
        raise UserError("--tracker", repr(text), "HOST:PORT of TVM's RPC tracker", remedy)
    return host.removeprefix("[").removesuffix("]"), int(port)


def _on_processor(options: argparse.Namespace) -> "tuple[Judge, list[Task]]":
    from mlc_controlnet.compile.library import tvm_target
    from mlc_controlnet.config import TARGETS
    from mlc_controlnet.machine import set_up_threads
    from mlc_controlnet.tuning.measuring_judge import MeasuringJudge
    from mlc_controlnet.tuning.processor import ProcessorRunner

    set_up_threads()
    instruction_set = options.cpu or next(iter(host_instruction_sets()), None)
    if instruction_set is None:
        raise UserError("--target llvm", without_any(), "a processor that has one", "tune on another machine")
    target = tvm_target(TARGETS["llvm"], instruction_set)
    return MeasuringJudge(ProcessorRunner(target, instruction_set)), _tasks(options, target)


def _on_servers(options: argparse.Namespace) -> "tuple[Judge, list[Task]]":
    from mlc_controlnet.tuning.measuring_judge import MeasuringJudge
    from mlc_controlnet.tuning.tracker import Tracker
    from mlc_controlnet.tuning.tracker_runner import TrackerRunner

    runner = TrackerRunner(Tracker(*tracker_address(options.tracker), options.key))
    print(f"{runner.tracker.count()} servers of the key {options.key}, {runner.device}", flush=True)
    return MeasuringJudge(runner), _tasks(options, runner.target)


def _by_compilers(options: argparse.Namespace) -> "tuple[Judge, list[Task]]":
    from mlc_controlnet.bench.compilers.chips import AMD, CHIPS
    from mlc_controlnet.locations import check_checkout

    check_checkout("tune --runner compilers")
    names = tuple(dict.fromkeys(options.chip)) or ("navi31",)
    for name in names:
        check_one_of("--chip", name, CHIPS)

    from mlc_controlnet.bench.compilers.amd import mesa_version
    from mlc_controlnet.bench.compilers.candidates import CompilerJudge
    from mlc_controlnet.bench.compilers.nvidia import find_toolkit
    from mlc_controlnet.compile.library import tvm_target
    from mlc_controlnet.config import TARGETS

    chips = [CHIPS[name] for name in names]
    for chip in chips:  # before the model is captured, which takes minutes
        mesa_version(chip) if chip.maker == AMD else find_toolkit()
    return CompilerJudge(chips), _tasks(options, tvm_target(TARGETS["webgpu"]))


def _in_browsers(options: argparse.Namespace, stack: contextlib.ExitStack) -> "tuple[Judge, list[Task]]":
    from mlc_controlnet.compile.library import tvm_target
    from mlc_controlnet.config import TARGETS
    from mlc_controlnet.tuning.browser.runner import Admission, BrowserRunner
    from mlc_controlnet.tuning.browser.server import TabServer
    from mlc_controlnet.tuning.measuring_judge import MeasuringJudge

    def log(line: str) -> None:
        print(line, flush=True)

    ends = time.monotonic() + options.time_limit
    admission = Admission(options.dtype, takes_software=options.out.resolve() != DEFAULT_RECORDS.resolve())
    server = stack.enter_context(TabServer(admission.refusal, options.port))
    log(f"open {server.address} in a browser with WebGPU on this machine, in as many as you like: they measure")
    tasks = _tasks(options, tvm_target(TARGETS["webgpu"]))  # while the page is opened
    runner = BrowserRunner(server, admission, log, ends)
    stack.callback(lambda: log(runner.parts() or "nothing was measured"))
    return MeasuringJudge(runner), tasks


def _tasks(options: argparse.Namespace, target: object) -> "list[Task]":
    from mlc_controlnet.capture import capture
    from mlc_controlnet.checkpoint import find_model, load_checkpoint
    from mlc_controlnet.passes.pipeline import Pipeline, clean
    from mlc_controlnet.passes.quantize.keep_float16 import keep_float16
    from mlc_controlnet.tuning.tasks import find_tasks

    if options.step:
        from mlc_controlnet.bench.compilers.full_size import stable_diffusion

        checkpoint = stable_diffusion()
    else:
        checkpoint = load_checkpoint(find_model(options.model))
    cleaned = clean(capture(checkpoint, options.dtype))
    if options.target == "llvm":  # as a build does
        cleaned = keep_float16(cleaned)
    tasks = find_tasks(Pipeline(target).run(cleaned.module, until="lower"), target)
    chosen = [task for task in tasks if not options.only or any(part in task.title for part in options.only)]
    if not chosen:
        kernels = ", ".join(sorted({task.tunable.operation.kernel for task in tasks}))
        raise UserError("--only", " ".join(options.only), f"a part of a name: {kernels}, ...", "see what `tune` prints")
    return chosen
