"""Find the installed wheels that carry C++ sources, without importing them: importing tvm takes seconds."""

import importlib.util
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from mlc_controlnet.errors import UserError


def wheel_folder(distribution: str, module: str, needs: Sequence[str]) -> Path:
    """Return the folder of an installed package.

    Args:
        distribution: the package's name on PyPI.
        module: the package's name in `import`.
        needs: paths inside the folder that have to exist.

    Raises:
        UserError: the package is missing, or lacks one of `needs` (a source build of TVM does).
    """
    remedy = f"pip install the {distribution} that pyproject.toml pins"
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise UserError(subject=distribution, got="no installed package", wanted="its wheel", remedy=remedy)
    folder = Path(found.origin).parent
    for path in needs:
        if not (folder / path).exists():
            got = f"{distribution} {version(distribution)} without {path}"
            raise UserError(subject=str(folder), got=got, wanted="a wheel that carries it", remedy=remedy)
    return folder
