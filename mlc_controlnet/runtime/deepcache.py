"""DeepCache: most steps compute only the UNet's outermost layers, on features of an earlier step (arXiv 2312.00858).

Of every `interval` steps, the first is whole: ControlNets and the UNet run, and the residuals and the UNet's deep
features stay on the device. The steps after it are shallow: no ControlNet runs, and the shallow UNet reads what the
whole step left, residuals included. A shallow step without residuals would be further from the whole picture.
Twin: web/src/engine/deepcache.ts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mlc_controlnet.runtime.controls import Control
from mlc_controlnet.runtime.engine import Context, DeepFeature, Engine, Residuals


@dataclass
class DeepCache:
    """What the last whole step left for the shallow ones, in the order of the contexts.

    Attributes:
        interval: the distance of whole steps, 1 or more; 1 makes every step whole.
        shallow_steps: how many may still follow the last whole step.
    """

    interval: int
    shallow_steps: int = 0
    controlnets: Sequence[str] = ()
    residuals: Sequence[Residuals] = ()
    features: Sequence[DeepFeature] = field(default=())

    def is_shallow(self, active: Sequence[Control]) -> bool:
        """Return whether the next step is shallow. It is whole if other ControlNets take part than in the last one."""
        return self.shallow_steps > 0 and _names(active) == self.controlnets

    def release(self) -> None:
        """Free what the last whole step left, before the next one computes as much again."""
        self.shallow_steps, self.residuals, self.features = 0, (), ()

    def keep(
        self, active: Sequence[Control], residuals: Sequence[Residuals], features: Sequence[DeepFeature | None]
    ) -> None:
        """Keep what a whole step computed, if shallow steps follow."""
        if self.interval == 1:
            return
        self.shallow_steps = self.interval - 1
        self.controlnets, self.residuals = _names(active), residuals
        self.features = [feature for feature in features if feature is not None]

    def predict(
        self, engine: Engine, sample: np.ndarray, timestep: float, contexts: Sequence[Context], guidance_scale: float
    ) -> list[np.ndarray]:
        """Take a shallow step: return the UNet's output for each context, float32 [1, C, h, w]."""
        self.shallow_steps -= 1
        kept = zip(contexts, self.features, self.residuals, strict=True)
        return [
            engine.unet_shallow(sample, timestep, context, feature, residuals, guidance_scale)
            for context, feature, residuals in kept
        ]


def _names(active: Sequence[Control]) -> list[str]:
    return [control.unit.controlnet.name for control in active]
