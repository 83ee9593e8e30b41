"""From the arguments of one call, with lists as diffusers takes them, to a request for each picture.

Twin: web/src/engine/batch.ts.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.option_checks import MAX_SEED, check_integer, check_seed
from mlc_controlnet.runtime.request import GenerateRequest

Prompts: TypeAlias = str | Sequence[str]
Seeds: TypeAlias = int | Sequence[int] | None
MAX_IMAGES = 1000  # of one call


def one_request_each(
    prompt: Prompts,
    negative_prompt: Prompts | None,
    num_images_per_prompt: int,
    seed: Seeds,
    generator: Any,
    latents: np.ndarray | None,
    options: Mapping[str, Any],
) -> list[GenerateRequest]:
    """Return the requests in diffusers' order: all pictures of the first prompt, then those of the second.

    Raises UserError for lists of different lengths, and TypeError for an option that does not exist.
    """
    prompts = _as_list(prompt)
    negatives = [] if negative_prompt is None else _as_list(negative_prompt)
    if len(negatives) not in (0, 1, len(prompts)):
        wanted = f"one text, or {len(prompts)}, one for each prompt"
        raise UserError("negative prompt", f"{len(negatives)} texts", wanted, "pass as many as prompts")
    each = check_integer("num images per prompt", num_images_per_prompt)
    count = len(prompts) * each
    seeds = seeds_of(seed if generator is None else _initial_seeds(generator), count)
    noises = _split(latents, count)
    requests = []
    for i in range(count):
        texts = {"prompt": prompts[i // each]}
        if negatives:
            texts["negative_prompt"] = negatives[i // each if len(negatives) > 1 else 0]
        requests.append(GenerateRequest(**texts, seed=seeds[i], latents=noises[i], **options))
    return requests


def seeds_of(seed: Seeds, count: int) -> list[int]:
    """Return a seed for each of `count` pictures: seed, seed + 1, ..., or those of a list; random if there is none.

    Raises UserError for a list of another length, a seed out of range and a count that is not in 1..MAX_IMAGES.
    """
    if not 1 <= count <= MAX_IMAGES:
        wanted = f"1 to {MAX_IMAGES} in one call"
        raise UserError("num images per prompt", f"{count} pictures", wanted, "choose another number")
    if seed is None:
        seed = secrets.randbelow(MAX_SEED - count + 2)
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        if len(seed) != count:
            raise UserError("seed", f"{len(seed)} seeds", f"one, or {count}, one for each picture", "pass as many")
        return [check_seed("seed", value) for value in seed]
    first = check_seed("seed", seed)
    check_seed("seed", first + count - 1)
    return [first + i for i in range(count)]


def _as_list(texts: Prompts) -> list[Any]:
    return list(texts) if isinstance(texts, list | tuple) else [texts]


def _initial_seeds(generator: Any) -> Seeds:
    """Return the seeds of torch's generators. torch draws seeds of 64 bits; ours have 53."""
    if isinstance(generator, list | tuple):
        return [value for one in generator for value in [_initial_seeds(one)] if isinstance(value, int)]
    if not hasattr(generator, "initial_seed"):
        wanted = "a torch.Generator, or a list of them"
        raise UserError("generator", type(generator).__name__, wanted, "pass seed, an integer, instead")
    return int(generator.initial_seed()) % (MAX_SEED + 1)


def _split(latents: np.ndarray | None, count: int) -> list[np.ndarray | None]:
    """Return the noise of each picture: [1, C, h, w] each."""
    if latents is None:
        return [None] * count
    noise = np.asarray(latents)
    if count == 1:
        return [noise]
    if noise.ndim != 4 or len(noise) != count:
        wanted = f"[{count}, C, h, w], noise for each picture"
        raise UserError("latents", str(list(noise.shape)), wanted, "draw them from a normal distribution")
    return [noise[i : i + 1] for i in range(count)]
