"""The bundles that a server draws with, as it knows them before any of their weights are loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.bundle.reader import Bundle, read_bundle
from mlc_controlnet.bundle.sampler_description import SamplerDescriptions, read_samplers
from mlc_controlnet.errors import UserError, check_one_of
from mlc_controlnet.runtime.inpainting import check_given
from mlc_controlnet.runtime.request import GenerateRequest, Settings
from mlc_controlnet.runtime.resolve import resolve
from mlc_controlnet.serve.limits import Limits


@dataclass(frozen=True)
class ServedModel:
    """One bundle under its name."""

    name: str
    bundle: Bundle
    samplers: SamplerDescriptions

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    def resolve(self, request: GenerateRequest, limits: Limits) -> Settings:
        """Check a request against the bundle and the server's limits, before it waits in a queue.

        Raises UserError for the first value that cannot be used.
        """
        settings = resolve(request, self.manifest, self.samplers)
        check_given(request.image, request.mask_image, self.manifest)
        own = (settings.timesteps or (), settings.sigmas or ())
        steps = max(settings.num_inference_steps, settings.hires_steps or 0, *map(len, own))
        if steps > limits.steps:
            raise UserError("num inference steps", str(steps), f"{limits.steps} at most", "take fewer steps")
        return settings


@dataclass(frozen=True)
class ServedModels:
    """All bundles of a server; the first one draws where a request names none."""

    models: tuple[ServedModel, ...]

    @property
    def names(self) -> list[str]:
        """The models' names, the default one first."""
        return [model.name for model in self.models]

    def named(self, name: str | None) -> ServedModel:
        """Return the model of a name, or the default one. Raises UserError for an unknown name."""
        if name is None:
            return self.models[0]
        check_one_of("model", name, self.names)
        return self.models[self.names.index(name)]


def read_models(folders: Sequence[Path], device: str | None = None) -> ServedModels:
    """Read the manifests of native bundles. A model's name is its bundle's, or the folder's if two have one name.

    device: that all are to have a library for; None: any.

    Raises UserError for a folder that holds no sound bundle, or one that this machine cannot draw with.
    """
    bundles = []
    for folder in folders:
        bundle = read_bundle(folder)
        bundle.manifest.check_can_draw(str(folder))
        bundle.check_sizes()
        devices = {library.device for library in bundle.manifest.libraries}
        if devices <= {"webgpu", "wasm"}:
            remedy = "build one with python -m mlc_controlnet build --target llvm; the page serves this one by itself"
            raise UserError(str(folder), "a bundle for browsers", "a native bundle", remedy)
        if device not in (None, *devices):
            got, remedy = f"{', '.join(sorted(devices))} only", "leave --device out, or build one for it"
            raise UserError(f"{folder}: libraries", got, f"one for --device {device}", remedy)
        bundles.append(bundle)
    own_names = [bundle.manifest.model.name for bundle in bundles]
    names = [
        name if own_names.count(name) == 1 else bundle.path.resolve().name
        for name, bundle in zip(own_names, bundles, strict=True)
    ]
    if len(set(names)) < len(names):
        raise UserError("--bundle", ", ".join(names), "bundles of different names", "rename a bundle's folder")
    return ServedModels(tuple(map(_served, names, bundles)))


def _served(name: str, bundle: Bundle) -> ServedModel:
    return ServedModel(name, bundle, read_samplers(bundle))
