"""The shallow UNet of DeepCache against the whole one: with the feature of the same step it computes the same."""

import pytest
import torch

from mlc_controlnet.capture import build_references, capture, example_inputs
from mlc_controlnet.checkpoint import Checkpoint, load_checkpoint
from mlc_controlnet.components import UNET, UNET_SHALLOW
from mlc_controlnet.errors import UserError
from mlc_controlnet.passes.pipeline import clean


def with_branch(random_model, branch: int) -> Checkpoint:
    return load_checkpoint(random_model, 64, 96, components=(UNET,), cached_branch=branch)


@pytest.mark.parametrize("branch", [0, 1, 2, 4])  # of six: conv_in, a layer, a sampler, a sampler of the next level
def test_with_the_feature_of_its_own_step_it_is_the_whole_unet(random_model, branch: int) -> None:
    checkpoint = with_branch(random_model, branch)
    references = build_references(checkpoint)
    sample, timestep, context, *residuals = example_inputs(checkpoint.specs[UNET], "float32", seed=3)
    with torch.no_grad():
        output, feature = references[UNET](sample, timestep, context, *residuals)
        shallow = references[UNET_SHALLOW](sample, timestep, context, feature, *residuals[: branch + 1])
        other = references[UNET_SHALLOW](sample, timestep, context, 2 * feature, *residuals[: branch + 1])
    assert feature.shape == checkpoint.shape.deep_feature.shape
    torch.testing.assert_close(shallow, output)
    assert (other - output).abs().max() > 0.01


def test_returning_the_feature_changes_nothing_else(random_model) -> None:
    inputs = example_inputs(with_branch(random_model, 1).specs[UNET], "float32", seed=3)
    whole = build_references(load_checkpoint(random_model, 64, 96, components=(UNET,)))[UNET]
    with torch.no_grad():
        output, _ = build_references(with_branch(random_model, 1))[UNET](*inputs)
        torch.testing.assert_close(output, whole(*inputs))


def test_its_params_are_some_of_the_whole_unets(random_model) -> None:
    captured = clean(capture(with_branch(random_model, 2)))
    shallow, whole = captured.params[UNET_SHALLOW], captured.params[UNET]
    assert 0 < len(shallow) < len(whole) / 2
    assert set(shallow) < set(whole)


def test_a_branch_that_the_unet_has_not_is_refused(random_model) -> None:
    with pytest.raises(UserError, match="--deepcache: got 6, wanted 0 to 5"):
        with_branch(random_model, 6)
