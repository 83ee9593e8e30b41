"""Modules that exist in Python and in TypeScript have the same functions in the same order."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TWINS = (
    ("runtime/pipeline.py", "pipeline.ts", 8),
    ("runtime/denoising.py", "denoising.ts", 9),
    ("runtime/batch.py", "batch.ts", 4),
    ("runtime/request.py", "request.ts", 3),
    ("runtime/option_checks.py", "option_checks.ts", 11),
    ("runtime/resolve.py", "resolve.ts", 3),
    ("runtime/controls.py", "controls.ts", 5),
    ("runtime/deepcache.py", "deepcache.ts", 4),
    ("runtime/option_pairs.py", "option_pairs.ts", 7),
    ("runtime/variant_options.py", "variant_options.ts", 2),
    ("runtime/engine.py", "engine.ts", 8),
    ("runtime/noise.py", "noise.ts", 3),
    ("runtime/inpainting.py", "inpainting.ts", 8),
    ("runtime/masks.py", "masks.ts", 5),
    ("runtime/masked_content.py", "masked_content.ts", 6),
    ("runtime/crop.py", "crop.ts", 3),
    ("runtime/mask_options.py", "mask_options.ts", 4),
    ("runtime/latents.py", "latents.ts", 7),
    ("runtime/tiles.py", "tiles.ts", 5),
    ("runtime/hires.py", "hires.ts", 3),
    ("bundle/sampler_description.py", "samplers/description.ts", 3),
    ("runtime/samplers/row.py", "samplers/row.ts", 2),
    ("runtime/samplers/prediction.py", "samplers/prediction.ts", 6),
    ("runtime/samplers/spacing.py", "samplers/spacing.ts", 8),
    ("runtime/samplers/beta_quantile.py", "samplers/beta_quantile.ts", 2),
    ("runtime/samplers/discrete.py", "samplers/discrete.ts", 5),
    ("runtime/samplers/pndm.py", "samplers/pndm.ts", 2),
    ("runtime/samplers/k_diffusion.py", "samplers/k_diffusion.ts", 8),
    ("runtime/samplers/dpm_solver.py", "samplers/dpm_solver.ts", 8),
    ("runtime/samplers/unipc.py", "samplers/unipc.ts", 6),
    ("runtime/samplers/schedule.py", "samplers/schedule.ts", 8),
    ("runtime/prompt_syntax.py", "prompt_syntax.ts", 7),
    ("runtime/prompts.py", "prompts.ts", 11),
    ("runtime/tokenizer.py", "tokenizer.ts", 6),
    ("runtime/png.py", "png.ts", 3),
    ("runtime/infotext.py", "infotext.ts", 14),
    ("runtime/metadata.py", "metadata.ts", 5),
    ("bundle/manifest.py", "model_traits.ts", 11),
    ("bundle/manifest_faults.py", "manifest_faults.ts", 10),
)
# A function, a method whose parameters fit on its line, or the first line of one whose parameters do not.
TYPESCRIPT_FUNCTION = re.compile(
    r"^(?:export )?(?:async )?function\*? (\w+)"
    r"|^  (?:(?:private|static|async) )*\*?(\w+)\((?:.*\{)?$",
    re.MULTILINE,
)


def python_functions(path: Path) -> list[str]:
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    return [node.name.lstrip("_") for node in sorted(functions, key=lambda node: node.lineno)]


def typescript_functions(path: Path) -> list[str]:
    names = [match[1] or match[2] for match in TYPESCRIPT_FUNCTION.finditer(path.read_text())]
    return [re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name) for name in names]


def last_places(names: list[str], wanted: set[str]) -> list[str]:
    """The wanted names by their last place: a method may have the name of the function that it calls."""
    return [name for i, name in enumerate(names) if name in wanted and name not in names[i + 1 :]]


@pytest.mark.parametrize(("python", "typescript", "least"), TWINS)
def test_twins_have_the_same_functions_in_the_same_order(python: str, typescript: str, least: int):
    ours = python_functions(ROOT / "mlc_controlnet" / python)
    theirs = typescript_functions(ROOT / "web" / "src" / "engine" / typescript)
    common = set(ours) & set(theirs)
    assert len(common) >= least, "a function was renamed in one language only"
    assert last_places(ours, common) == last_places(theirs, common)
