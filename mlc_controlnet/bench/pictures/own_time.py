"""The pipeline's own time: what a picture takes besides the calls of its components.

Only on a processor is a component's work done when its call returns. On a GPU, calls are queued, and the wait for the
last one is not the pipeline's own.
"""

import time
from collections.abc import Callable
from typing import Any

from mlc_controlnet.runtime.engine import Engine

METHODS = (
    "text_encoder",
    "control_embedding",
    "controlnet",
    "residual_sum",
    "unet_and_feature",
    "unet_shallow",
    "vae_encoder",
    "vae_decoder",
)


class ComponentClock:
    """Adds up the seconds inside an engine's component calls, transfers between host and device included."""

    def __init__(self, engine: Engine) -> None:
        self.seconds = 0.0
        for name in METHODS:
            setattr(engine, name, self._timed(getattr(engine, name)))

    def own_share(self, draw: Callable[[], Any]) -> float:
        """Draw once; return the pipeline's own time as a share of its components' time."""
        self.seconds, started = 0.0, time.perf_counter()
        draw()
        whole = time.perf_counter() - started
        return whole / self.seconds - 1

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - started

        return timed
