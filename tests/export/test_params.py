"""Weights in shards: a page fetches a group of components when a picture needs it, and nothing with it."""

import numpy as np
import torch

from mlc_controlnet.capture import Param
from mlc_controlnet.export.params import write_params

COMPONENTS = {
    "text_encoder": ["text.a"],
    "control_embedding": ["canny.hint"],
    "controlnet": ["canny.a"],
    "control_embedding_2": ["depth.hint"],
    "controlnet_2": ["depth.a", "depth.b"],
    "controlnet_12": ["pose.a"],
    "unet": ["unet.a", "unet.b"],
    "unet_shallow": ["unet.b"],
    "vae_decoder": ["decoder.a"],
    "vae_encoder": ["encoder.a"],
}


class Files:
    """A bundle's files, in memory."""

    def __init__(self):
        self.contents = {}

    def add_bytes(self, name, content):
        self.contents[name] = content


def shards_of(components=COMPONENTS, **options):
    names = dict.fromkeys(name for tensors in components.values() for name in tensors)
    tensors = {name: torch.full((3,), float(i + 1)) for i, name in enumerate(names)}
    files = Files()
    params = {component: [Param.whole(name) for name in own] for component, own in components.items()}
    spec = write_params(files, params, tensors, **options)
    for record in spec.records:
        stored = files.contents[spec.shards[record.shard]][record.byte_offset :][: record.bytes]
        assert np.frombuffer(stored, "<f2").tolist() == tensors[record.name].tolist()
    assert spec.bytes == 6 * len(names)
    assert list(files.contents) == list(spec.shards)
    return [[r.name for r in spec.records if r.shard == shard] for shard in range(len(spec.shards))]


def test_what_is_fetched_at_different_times_is_in_different_shards():
    assert shards_of() == [
        ["text.a", "canny.hint", "canny.a", "unet.a", "unet.b", "decoder.a"],
        ["depth.hint", "depth.a", "depth.b"],
        ["pose.a"],
        ["encoder.a"],
    ]


def test_a_weight_of_several_components_is_written_once_with_those_that_every_picture_needs():
    components = {"vae_encoder": ["encoder.a", "shared"], "vae_decoder": ["shared"]}
    assert shards_of(components) == [["shared"], ["encoder.a"]]


def test_a_shard_that_is_full_is_followed_by_another_of_its_group():
    assert shards_of(max_shard_bytes=16)[:3] == [
        ["text.a", "canny.hint"],
        ["canny.a", "unet.a"],
        ["unet.b", "decoder.a"],
    ]


def test_shards_that_are_added_to_a_bundle_count_on():
    files = Files()
    write_params(files, {"controlnet_2": [Param.whole("a")]}, {"a": torch.ones(1)}, first_shard=7)
    assert list(files.contents) == ["params/07.bin"]
