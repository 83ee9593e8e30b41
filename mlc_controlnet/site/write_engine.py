"""The engine as ES modules with types, for other sites and bundlers."""

import shutil
import subprocess
from pathlib import Path

from mlc_controlnet.errors import UserError
from mlc_controlnet.files import check_replaceable, whole_folder
from mlc_controlnet.locations import ENGINE, IS_CHECKOUT, THIRD_PARTY_LICENSES, WEB


def write_engine(folder: Path) -> None:
    """Replace `folder` by the engine: ES modules, types, package.json and the licenses of what they contain.

    In a checkout, Vite builds it. An installed package copies the engine that it carries. Raises UserError if neither
    is possible, or if `folder` holds something that is not an older engine.
    """
    check_replaceable(folder, (folder / "engine.js").is_file(), "an engine")
    has_node = IS_CHECKOUT and (WEB / "node_modules").is_dir() and shutil.which("npm") is not None
    if not has_node and not ENGINE.is_dir():
        wanted = "Node 20 and its packages" if IS_CHECKOUT else "a package that was built with Node"
        remedy = "run `npm ci` in web/" if IS_CHECKOUT else "install mlc-controlnet from a complete wheel"
        raise UserError("the engine", "nothing to build it with", wanted, remedy)
    with whole_folder(folder) as partial:
        if has_node:
            for command in (
                ["vite", "build", "--logLevel", "warn", "--config", "vite.engine.config.ts", "--outDir", str(partial)],
                ["tsc", "-p", "tsconfig.types.json", "--outDir", str(partial / "types")],
            ):
                subprocess.run(["npm", "exec", "--", *command], cwd=WEB, check=True)
        else:
            shutil.copytree(ENGINE, partial, dirs_exist_ok=True)
        shutil.copy(THIRD_PARTY_LICENSES, partial)
