"""The demo site: the page of `web/`, built by Vite, with a bundle beside it."""

import shutil
import subprocess
from pathlib import Path

from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.files import whole_folder
from mlc_controlnet.locations import DIST, WEB


def build_site(bundle: Bundle, site: Path = DIST / "site") -> None:
    """Build the page into `site` and put `bundle` into `site`/bundle; without Node's packages, say how to get them."""
    if not (WEB / "node_modules").is_dir() or shutil.which("npm") is None:
        print("the demo page was not built: it needs Node 20 and `npm ci` in web/ (or `make demo`, which does both)")
        return
    subprocess.run(["npm", "run", "--silent", "build", "--", "--outDir", str(site.resolve())], cwd=WEB, check=True)
    with whole_folder(site / "bundle") as partial:
        shutil.copytree(bundle.path, partial, dirs_exist_ok=True)
    print(f"{site}: open it with python -m mlc_controlnet serve")
