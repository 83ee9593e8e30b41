"""The demo site: the page of `web/`, built by Vite, with a bundle beside it."""

import shutil
import subprocess
from pathlib import Path

from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.locations import DIST, WEB


def build_site(bundle: Bundle, site: Path = DIST / "site") -> None:
    """Build the page into `site` and put `bundle` into `site`/bundle; without Node's packages, say how to get them."""
    if not (WEB / "node_modules").is_dir() or shutil.which("npm") is None:
        print("the demo page was not built: it needs Node 20 and `npm ci` in web/ (or `make demo`, which does both)")
        return
    subprocess.run(["npm", "run", "--silent", "build", "--", "--outDir", str(site.resolve())], cwd=WEB, check=True)
    partial = site / ".bundle.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(bundle.path, partial)
    shutil.rmtree(site / "bundle", ignore_errors=True)
    partial.rename(site / "bundle")
    print(f"{site}: open it with python -m mlc_controlnet serve")
