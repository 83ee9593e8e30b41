"""Judges a search's candidates by the compilers of GPUs that are not there: `tune --runner compilers`.

A candidate's figure is its predicted time (roofline.py). AMD's compiler is many times as fast as NVIDIA's: where both
are asked for, the search goes by AMD's chips, and of the best that it finds those may win that hold on all of them. The
prediction leaves out latency, so a candidate must hold as many waves as the rules' choice, or as many as hide it, and
may spill no register. What wins is run on a software adapter, and its output compared with the reference.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tvm
from tvm import tirx
from tvm.s_tir import ScheduleError

from mlc_controlnet.bench.compilers.amd import compile_for_amd
from mlc_controlnet.bench.compilers.chips import AMD, Chip
from mlc_controlnet.bench.compilers.judgement import KernelJudgement, judge_kernel
from mlc_controlnet.bench.compilers.kernels import bytes_of
from mlc_controlnet.bench.compilers.nvidia import compile_for_nvidia
from mlc_controlnet.bench.compilers.spirv import driver_manifest, to_spirv
from mlc_controlnet.compile.library import tvm_target
from mlc_controlnet.compile.sources import generate_source
from mlc_controlnet.config import TARGETS
from mlc_controlnet.kernels.integers import ceil_div
from mlc_controlnet.kernels.tunable import Decisions
from mlc_controlnet.locations import WEB
from mlc_controlnet.passes.check.check_webgpu_limits import KernelFacts
from mlc_controlnet.passes.schedule.tuning_records import PREDICTED, WORST_LOSS, WORTH_A_RECORD, geometric_mean
from mlc_controlnet.tuning.judge import Candidate, Comparison, Trial
from mlc_controlnet.tuning.reference import make_reference
from mlc_controlnet.tuning.runner import refusal
from mlc_controlnet.tuning.shader import Shader, compile_shader
from mlc_controlnet.tuning.tasks import Task

FAMILIES = {"navi31": "rdna3", "navi21": "rdna2", "sm_80": "ampere", "sm_89": "ada", "sm_90": "hopper"}
ENOUGH_WAVES = 8  # of a SIMD: they hide the latency of workgroup memory


class CompilerJudge:
    """Predicts for chips. Candidates that any of them refuses fail."""

    how = PREDICTED
    finalists = 8  # compiling one for all chips takes a second or two

    def __init__(self, chips: Sequence[Chip], batch: int = 8) -> None:
        self.chips = chips
        self.batch = batch
        self.searched = [chip for chip in chips if chip.maker == AMD] or list(chips)
        self.devices = [chip.name for chip in self.searched]
        self.families = {chip.name: FAMILIES[chip.name] for chip in chips}
        self._target = tvm_target(TARGETS["webgpu"])
        self._rules: dict[tuple[str, str], KernelJudgement] = {}  # of an operation on a chip

    def judge(self, candidates: Sequence[Candidate]) -> list[Trial]:
        """Compile the candidates and predict their times."""
        return self._trials(candidates, self.searched)

    def _trials(self, candidates: Sequence[Candidate], chips: Sequence[Chip]) -> list[Trial]:
        judged, problems = self._judge(candidates, chips)
        return [
            Trial(decisions, {} if problem else {name: _seconds(one) for name, one in of_chips.items()}, problem)
            for (_, decisions), of_chips, problem in zip(candidates, judged, problems, strict=True)
        ]

    def compare(self, task: Task, finalists: Sequence[Decisions]) -> list[Comparison]:
        """Predict for all chips, and run finalists that win on a software adapter until one agrees with the reference.

        The fastest over all chips comes first. If none wins, only the best of them is run.
        """
        first, *trials = self._trials([(task, one) for one in (task.tunable.chosen, *finalists)], self.chips)
        rules = first.seconds
        if not rules:
            return []
        compared = [Comparison(one.decisions, one.seconds, rules, 0.0, one.problem) for one in trials if one.problem]
        ranked = sorted((_rank(one, first), number) for number, one in enumerate(trials) if not one.problem)
        if not ranked:
            return compared
        reference = make_reference(task.function, tvm_target(TARGETS["llvm"]))
        winners = [number for (loses, mean), number in ranked if not loses and mean <= WORTH_A_RECORD]
        for trial in (trials[number] for number in winners or [ranked[0][1]]):
            shader = compile_shader(task.tunable.schedule(trial.decisions), self._target)
            decibels = reference.decibels(
                run_on_adapter(shader.function, shader.wgsl, shader.facts, reference.arguments)
            )
            problem = reference.problem(decibels)
            compared.append(Comparison(trial.decisions, trial.seconds, rules, decibels, problem))
            if not problem:
                break
        return compared

    def _rules_of(self, task: Task, chip: Chip) -> KernelJudgement:
        if (task.key, chip.name) not in self._rules:
            self._judge([(task, task.tunable.chosen)], [chip])
        return self._rules[task.key, chip.name]

    def _judge(
        self, candidates: Sequence[Candidate], chips: Sequence[Chip]
    ) -> tuple[list[dict[str, KernelJudgement]], list[str]]:
        """Return what the chips' compilers said of each candidate, by chip, and why each may not be used."""
        problems = [""] * len(candidates)
        judged: list[dict[str, KernelJudgement]] = [{} for _ in candidates]
        shaders: dict[str, Shader] = {}
        for number, (task, decisions) in enumerate(candidates):
            try:
                shaders[str(number)] = compile_shader(task.tunable.schedule(decisions), self._target)
            except (ScheduleError, ValueError) as error:
                problems[number] = refusal(error).problem
        with tempfile.TemporaryDirectory() as folder:
            for chip in chips:
                of_amd = chip.maker == AMD
                found, errors = (self._on_amd if of_amd else self._on_nvidia)(shaders, chip, Path(folder))
                for name, judgement in found.items():
                    judged[int(name)][chip.name] = judgement
                for name, reason in errors.items():
                    problems[int(name)] = problems[int(name)] or f"{chip.name}: {reason}"
        good = [number for number, problem in enumerate(problems) if not problem]
        for number in good:
            task, decisions = candidates[number]
            if decisions == task.tunable.chosen:
                self._rules |= {(task.key, name): one for name, one in judged[number].items()}
        for number in good:
            task, decisions = candidates[number]
            waits = (_waits(judged[number][chip.name], self._rules_of(task, chip), chip) for chip in chips)
            problems[number] = next(filter(None, waits), "")
        return judged, problems

    def _on_amd(
        self, shaders: Mapping[str, Shader], chip: Chip, folder: Path
    ) -> tuple[dict[str, KernelJudgement], dict[str, str]]:
        compiled, rejected = to_spirv({name: shader.wgsl for name, shader in shaders.items()}, folder)
        codes, failed = compile_for_amd(compiled, chip)
        judged = {
            name: judge_kernel(
                code, name, 1, shaders[name].workgroups, compiled[name].threads, _operand_bytes(shaders[name]), chip
            )
            for name, code in codes.items()
        }
        return judged, rejected | failed

    def _on_nvidia(
        self, shaders: Mapping[str, Shader], chip: Chip, folder: Path
    ) -> tuple[dict[str, KernelJudgement], dict[str, str]]:
        if not shaders:
            return {}, {}
        names = {f"candidate_{name}": name for name in shaders}
        functions = {f"candidate_{name}": shader.function for name, shader in shaders.items()}
        source = generate_source(tvm.IRModule(functions), tvm_target(TARGETS["cuda"]))
        threads = {kernel: facts.threads for kernel, facts in source.kernels.items()}
        codes, errors = compile_for_nvidia(source.text, threads, chip.architecture, folder)
        judged = {}
        for kernel, code in codes.items():
            name = names[kernel.removesuffix("_kernel")]
            shader = shaders[name]
            judged[name] = judge_kernel(code, name, 1, shader.workgroups, threads[kernel], _operand_bytes(shader), chip)
        return judged, {names[kernel.removesuffix("_kernel")]: error for kernel, error in errors.items()}


def _operand_bytes(shader: Shader) -> int:
    return sum(bytes_of(parameter.ty) for parameter in shader.function.params)


def _seconds(judgement: KernelJudgement) -> float:
    return judgement.total_microseconds / 1e6


def _rank(trial: Trial, rules: Trial) -> tuple[bool, float]:
    """Return whether a trial loses too much on one chip, and the mean of its times over the rules'."""
    ratios = [seconds / rules.seconds[chip] for chip, seconds in trial.seconds.items()]
    return max(ratios) > WORST_LOSS, geometric_mean(ratios)


def _waits(one: KernelJudgement, rules: KernelJudgement, chip: Chip) -> str:
    """Return why a candidate would wait for memory more than the rules' choice does; empty if it would not."""
    if one.spilled > rules.spilled:
        return f"{chip.name}: spills {one.spilled} registers"
    if one.occupancy < min(rules.occupancy, ENOUGH_WAVES):
        return f"{chip.name}: room for {one.occupancy} waves a SIMD, the rules' choice has {rules.occupancy}"
    there, wanted = (it.workgroups * ceil_div(it.threads, it.wave) for it in (one, rules))
    if there < min(wanted, 2 * chip.units * chip.simds):
        return f"{chip.name}: {there} waves in all, the rules' choice has {wanted}"
    return ""


def run_on_adapter(
    function: tirx.PrimFunc, wgsl: str, facts: KernelFacts, arguments: Sequence[np.ndarray]
) -> np.ndarray:
    """Run a kernel on Mesa's software adapter and return its output.

    arguments: in the order of the function's parameters, the output last.
    """
    names = [str(parameter.name) for parameter in function.params]
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder) / f"{name}.bin") for name in names}
        for name, values in zip(names, arguments, strict=True):
            Path(files[name]).write_bytes(values.tobytes())
        job = Path(folder) / "job.json"
        kernels = [{"wgsl": wgsl, "grid": facts.grid}]
        job.write_text(json.dumps({"buffers": files, "kernels": kernels, "outputs": names[-1:]}), encoding="utf-8")
        environment = {**os.environ, "VK_ICD_FILENAMES": str(driver_manifest("lvp")), "GALLIVM_PERF": "nopt"}
        command = ["node", "bench/compilers/run_wgsl.mjs", str(WEB), str(job)]
        run = subprocess.run(command, cwd=WEB, env=environment, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} in web/ exited with {run.returncode}: {run.stderr[-1000:]}")
        values = np.frombuffer(Path(files[names[-1]]).read_bytes(), arguments[-1].dtype)
    return values.reshape(arguments[-1].shape)
