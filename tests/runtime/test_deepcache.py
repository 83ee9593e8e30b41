"""Which steps DeepCache computes whole, and what it calls for the others."""

from types import SimpleNamespace

import numpy as np
import pytest

from mlc_controlnet.runtime.deepcache import DeepCache


def controls(*names):
    return [SimpleNamespace(unit=SimpleNamespace(controlnet=SimpleNamespace(name=name))) for name in names]


class Calls:
    def __init__(self):
        self.shallow = []

    def unet_shallow(self, sample, timestep, context, feature, residuals, guidance_scale):
        self.shallow.append((timestep, context, feature, residuals, guidance_scale))
        return sample


def kinds(interval: int, active_of_steps: list) -> str:
    """w for a whole step, s for a shallow one."""
    cache, engine, result = DeepCache(interval), Calls(), ""
    for step, active in enumerate(active_of_steps):
        if cache.is_shallow(active):
            cache.predict(engine, np.zeros(1), step, ["negative", "prompt"], 2.0)
            result += "s"
        else:
            cache.keep(active, [f"r{step}", f"R{step}"], [f"f{step}", f"F{step}"])
            result += "w"
    return result


@pytest.mark.parametrize(("interval", "wanted"), [(1, "wwwwwww"), (2, "wswswsw"), (3, "wsswssw"), (5, "wssssws")])
def test_the_first_of_every_interval_is_whole(interval, wanted):
    assert kinds(interval, [controls("lines")] * 7) == wanted


def test_a_step_with_other_controlnets_is_whole():
    lines, both, none = controls("lines"), controls("lines", "depth"), controls()
    assert kinds(3, [lines, lines, both, both, both, none, none, lines]) == "wswsswsw"


def test_a_shallow_step_reads_what_the_last_whole_one_left_for_its_context():
    cache, engine = DeepCache(2), Calls()
    cache.keep([], ["r0", "R0"], ["f0", "F0"])
    outputs = cache.predict(engine, np.ones(1), 40.0, ["negative", "prompt"], 2.0)
    assert engine.shallow == [(40.0, "negative", "f0", "r0", 2.0), (40.0, "prompt", "F0", "R0", 2.0)]
    assert len(outputs) == 2


def test_without_an_interval_nothing_is_kept():
    cache = DeepCache(1)
    cache.keep([], ["r0"], ["f0"])
    assert (list(cache.residuals), list(cache.features)) == ([], [])


def test_a_whole_step_begins_without_what_the_last_one_left():
    cache = DeepCache(2)
    cache.keep(controls("lines"), ["r0"], ["f0"])
    cache.release()
    assert (list(cache.residuals), list(cache.features)) == ([], [])
    assert not cache.is_shallow(controls("lines"))
