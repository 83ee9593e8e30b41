"""Describe a build for the manifest: its model, components, tokenizer and versions."""

import dataclasses
import json
from importlib.metadata import version
from typing import Any

import mlc_controlnet
from mlc_controlnet.bundle import manifest
from mlc_controlnet.bundle.params import MergedParam, QuantizedParam
from mlc_controlnet.bundle.variant import FunctionEntry, Variant
from mlc_controlnet.capture import CapturedModel, PackedParam
from mlc_controlnet.capture.packed_param import TABLE, WORDS
from mlc_controlnet.checkpoint import Checkpoint, part_of
from mlc_controlnet.checkpoint.source import TokenizerSource
from mlc_controlnet.components import PER_CONTROLNET, TensorSpec, component_specs, kind_of, numbered
from mlc_controlnet.errors import UserError
from mlc_controlnet.export.graph import graph_of

TOKENIZER_FILE = "tokenizer/tokenizer.json"
TOKENIZER_2_FILE = "tokenizer_2/tokenizer.json"  # unless it is equal to the first
SAMPLERS_FILE = "samplers.json"

PACKAGES = ("apache-tvm", "apache-tvm-ffi", "torch", "diffusers", "transformers", "tokenizers", "safetensors")


def describe_model(checkpoint: Checkpoint) -> manifest.ModelSummary:
    """Describe the model: its name, its default size and the numbers that the host needs."""
    return manifest.ModelSummary(
        name=checkpoint.name,
        height=checkpoint.shape.height,
        width=checkpoint.shape.width,
        latent_channels=checkpoint.shape.latent_channels,
        vae_scale_factor=checkpoint.shape.vae_scale_factor,
        prediction_type=checkpoint.scheduler_config.get("prediction_type", "epsilon"),
        scaling_factor=checkpoint.parts["vae"].config.scaling_factor,
        zeros_for_empty_prompt=checkpoint.zeros_for_empty_prompt,
    )


def describe_components(checkpoint: Checkpoint, captured: CapturedModel) -> dict[str, manifest.ComponentEntry]:
    """Describe each built component: its inputs, its outputs and the names of its params, in the function's order."""
    return {
        name: manifest.ComponentEntry(
            function=captured.function_of(name),
            inputs=tuple(map(_without_example, spec.inputs)),
            outputs=tuple(map(_without_example, spec.outputs)),
            params=tuple(param.name for param in captured.params[name]),
        )
        for name, spec in checkpoint.specs.items()
    }


def describe_merges(captured: CapturedModel) -> tuple[MergedParam, ...]:
    """Describe the params that the device makes."""
    return tuple(
        MergedParam(param.name, merge.shape.result, merge.shape.function, tuple(s.name for s in merge.sources))
        for param, merge in captured.merges.items()
    )


def describe_quantized(captured: CapturedModel, checkpoint: Checkpoint) -> tuple[QuantizedParam, ...]:
    """Describe the weights that are stored in few bits."""
    tensors = checkpoint.stored_tensors()
    parts: dict[str, dict[str, PackedParam]] = {}
    for own in captured.params.values():
        for param in own:
            if isinstance(param, PackedParam):
                parts.setdefault(param.weight.name, {})[param.stores] = param
    return tuple(
        QuantizedParam(
            name,
            own[WORDS].weight.shape(tensors),
            own[WORDS].scheme.method,
            own[WORDS].scheme.bits,
            own[WORDS].scheme.group,
            own[WORDS].name,
            own[TABLE].name,
        )
        for name, own in parts.items()
    )


def describe_variants(checkpoint: Checkpoint) -> tuple[Variant, ...]:
    """Describe the other picture sizes and lengths of prompts: which functions serve them."""
    names = {spec: name for name, spec in checkpoint.function_specs.items()}
    own = dict.fromkeys(checkpoint.functions.values())
    variants = []
    for shape in checkpoint.other_shapes:
        kinds = component_specs(shape)
        specs = [dataclasses.replace(kinds[kind_of(component)], name=component) for component in own]
        specs = [spec for spec in specs if names.get(spec, spec.name) != spec.name]
        functions = {
            spec.name: FunctionEntry(
                function=names[spec],
                inputs=tuple(map(_without_example, spec.inputs)),
                outputs=tuple(map(_without_example, spec.outputs)),
            )
            for spec in specs
        }
        variants.append(Variant(shape.height, shape.width, shape.chunks, functions))
    return tuple(variants)


def describe_controlnets(checkpoint: Checkpoint, captured: CapturedModel) -> tuple[manifest.ControlNetEntry, ...]:
    """Describe the ControlNets, in the order in which a picture's control images belong to them.

    captured: after phase clean.
    """
    entries = []
    for i, (name, kind) in enumerate(checkpoint.controlnets.items()):
        embedding, controlnet = (numbered(component, i + 1) for component in PER_CONTROLNET)
        if {embedding, controlnet} <= set(checkpoint.components):
            pools = bool(checkpoint.parts[part_of(controlnet)].config.global_pool_conditions)
            graph = "-".join(graph_of(captured, component) for component in (embedding, controlnet))
            entries.append(manifest.ControlNetEntry(name, embedding, controlnet, pools, kind, graph))
    return tuple(entries)


def _without_example(tensor: TensorSpec) -> TensorSpec:
    return TensorSpec(tensor.name, tensor.shape, tensor.dtype)


def tokenizer_files(checkpoint: Checkpoint) -> list[tuple[str, TokenizerSource]]:
    """List the tokenizers and their files in the bundle. The two of Stable Diffusion XL often share one file."""
    first = TokenizerSource(checkpoint.tokenizer_json, checkpoint.special_tokens)
    second = checkpoint.tokenizer_2
    if second is None:
        return [(TOKENIZER_FILE, first)]
    return [(TOKENIZER_FILE, first), (TOKENIZER_FILE if second.json == first.json else TOKENIZER_2_FILE, second)]


def describe_tokenizers(checkpoint: Checkpoint) -> tuple[manifest.TokenizerSpec, ...]:
    """Describe the tokenizer of each text encoder. Raises UserError as `describe_tokenizer`."""
    return tuple(describe_tokenizer(checkpoint, tokenizer, file) for file, tokenizer in tokenizer_files(checkpoint))


def describe_tokenizer(checkpoint: Checkpoint, tokenizer: TokenizerSource, file: str) -> manifest.TokenizerSpec:
    """Describe a tokenizer, with the ids of the begin, end and padding tokens that its configuration names.

    Raises:
        UserError: the configuration names a token that tokenizer.json does not have.
    """
    vocabulary = _vocabulary(tokenizer.json)

    def token_id(role: str) -> int:
        token = tokenizer.special_tokens[role]
        if token not in vocabulary:
            raise UserError(f"tokenizer: {role}", repr(token), "a token of tokenizer.json", "save the model again")
        return vocabulary[token]

    return manifest.TokenizerSpec(
        file=file,
        max_length=checkpoint.shape.tokens,
        begin_id=token_id("bos_token"),
        end_id=token_id("eos_token"),
        pad_id=token_id("pad_token"),
    )


def _vocabulary(tokenizer_json: bytes) -> dict[str, int]:
    tokenizer: dict[str, Any] = json.loads(tokenizer_json)
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
    return {**tokenizer["model"]["vocab"], **added}


def describe_versions() -> dict[str, str]:
    """Return the versions of this package and of the packages that took part in the build."""
    return {"mlc_controlnet": mlc_controlnet.__version__, **{name: version(name) for name in PACKAGES}}
