import pytest
import tvm
from tvm.script import ir as I
from tvm.script import tirx as T
from tvm.target import Target

from mlc_controlnet.tuning import search as search_module
from mlc_controlnet.tuning.search import search
from mlc_controlnet.tuning.tasks import Task, list_candidates

LLVM = Target({"kind": "llvm", "num-cores": 2})


@I.ir_module
class Product:
    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((16, 8), "float32"), w: T.Buffer((24, 8), "float32"), y: T.Buffer((16, 24), "float32")):
        for i, j, k in T.grid(16, 24, 8):
            with T.sblock("product"):
                m, n, d = T.axis.remap("SSR", [i, j, k])
                with T.init():
                    y[m, n] = T.float32(0)
                y[m, n] = y[m, n] + x[m, d] * w[n, d]


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Stands in for the stopwatch: text of a schedule -> what it takes; 1 s for the others."""
    times: dict[str, float] = {}

    class Stopwatch:
        def __init__(self, schedule: tvm.s_tir.Schedule, target: Target) -> None:
            self.text = schedule.mod.script()

        def seconds(self) -> float:
            return times.get(self.text, 1.0)

    monkeypatch.setattr(search_module, "Stopwatch", Stopwatch)
    return times


def test_fastest_candidate_is_found(seconds: dict[str, float]) -> None:
    candidates = list(list_candidates(Product["main"], LLVM))
    seconds[candidates[3].mod.script()] = 0.5
    seconds[candidates[5].mod.script()] = 0.4
    found = search(Task("product", Product["main"], 40), LLVM)
    assert found is not None
    assert (found.seconds_by_rules, found.seconds) == (1.0, 0.4)
    tvm.ir.assert_structural_equal(found.schedule.mod, candidates[5].mod)


def test_gain_within_the_noise_is_no_record(seconds: dict[str, float]) -> None:
    candidates = list(list_candidates(Product["main"], LLVM))
    seconds[candidates[3].mod.script()] = 0.95
    assert search(Task("product", Product["main"], 40), LLVM) is None
