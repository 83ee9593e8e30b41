"""The components in torch under the runtime's interface: its pipeline draws with them before anything is compiled."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mlc_controlnet.bundle.manifest import FORMAT_VERSION, LatentPreview, Library, Manifest, SamplersSpec
from mlc_controlnet.bundle.params import ParamsSpec
from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.bundle.sampler_description import descriptions_to_json
from mlc_controlnet.bundle.variant import functions_by_shapes
from mlc_controlnet.capture import CapturedModel
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.export import description
from mlc_controlnet.export.sampler_descriptions import default_sampler, describe_samplers
from mlc_controlnet.runtime.engine import Engine

Tensors = tuple[torch.Tensor, ...]
OnCall = Callable[[str, Tensors, Tensors], None]  # component, inputs, outputs


@dataclass(frozen=True)
class UnwrittenBundle(Bundle):
    """What a pipeline reads of a bundle, before there is one: no libraries and no weights."""

    contents: Mapping[str, bytes] = field(default_factory=dict)

    def read_file(self, name: str) -> bytes:
        """Return the content of a file."""
        return self.contents[name]


class TorchEngine(Engine):
    """Runs modules as `build_references` makes them, in float32.

    Args:
        on_call: takes each call of a component when it has ended.
    """

    def __init__(self, bundle: Bundle, modules: Mapping[str, nn.Module], on_call: OnCall) -> None:
        self.bundle = bundle
        self.library = Library("", "torch", "float32", (), {}, {}, {}, 0)
        self._functions = functions_by_shapes(bundle.manifest.components, bundle.manifest.variants)
        self._modules = modules
        self._on_call = on_call

    def _call(self, component: str, *inputs: Any) -> Any:
        tensors = tuple(self._to_device(value) for value in inputs)
        with torch.no_grad():
            result = self._modules[component](*tensors)
        self._on_call(component, tensors, (result,) if isinstance(result, torch.Tensor) else tuple(result))
        return result

    def _to_device(self, value: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value


def unwritten_bundle(checkpoint: Checkpoint, captured: CapturedModel) -> UnwrittenBundle:
    """Describe a model to a pipeline.

    captured: after phase clean.
    """
    tokenizers = description.describe_tokenizers(checkpoint)
    samplers = describe_samplers(checkpoint.scheduler_config)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        model=description.describe_model(checkpoint),
        target="torch",
        libraries=(),
        components=description.describe_components(checkpoint, captured),
        variants=description.describe_variants(checkpoint),
        controlnets=description.describe_controlnets(checkpoint, captured),
        params=ParamsSpec("float16", 0, (), ()),
        tokenizer=tokenizers[0],
        more_tokenizers=tokenizers[1:],
        samplers=SamplersSpec(description.SAMPLERS_FILE, default_sampler(checkpoint.scheduler_config)),
        defaults=checkpoint.defaults,
        latent_preview=LatentPreview((), ()),
        memory={},
        parity_db={},
        versions={},
    )
    contents = {file: tokenizer.json for file, tokenizer in description.tokenizer_files(checkpoint)}
    contents[description.SAMPLERS_FILE] = json.dumps(descriptions_to_json(samplers)).encode()
    return UnwrittenBundle(Path(checkpoint.name), manifest, "", contents)
