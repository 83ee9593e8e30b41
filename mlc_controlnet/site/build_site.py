"""The demo site: the page with a bundle next to it."""

import shlex
import shutil
import subprocess
from pathlib import Path

from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.errors import UserError
from mlc_controlnet.files import whole_folder
from mlc_controlnet.locations import IS_CHECKOUT, PAGE, THIRD_PARTY_LICENSES, WEB


def check_site_folder(site: Path) -> None:
    """Raise UserError if `build_site` would replace something that is not an older site."""
    if site.exists() and not (site.is_dir() and (not any(site.iterdir()) or (site / "index.html").is_file())):
        raise UserError(
            str(site), "something that is not a site", "an older site or nothing", "move it, or choose another --out"
        )


def build_site(bundle: Bundle, site: Path) -> None:
    """Replace the folder `site` by the demo page with a copy of `bundle` in `bundle/`.

    In a checkout, Vite builds the page. An installed package copies the page that it carries. If neither is possible,
    this prints why and leaves `site` as it was.
    """
    has_node = IS_CHECKOUT and (WEB / "node_modules").is_dir() and shutil.which("npm") is not None
    if not has_node and not PAGE.is_dir():
        reason = (
            "it needs Node 20 and `npm ci` in web/; `make demo` does both"
            if IS_CHECKOUT
            else "this package was built without Node and carries no page; install it from a complete wheel"
        )
        print(f"the demo page was not built: {reason}")
        return
    with whole_folder(site) as partial:
        if has_node:
            subprocess.run(["npm", "run", "--silent", "build", "--", "--outDir", str(partial)], cwd=WEB, check=True)
        else:
            shutil.copytree(PAGE, partial, dirs_exist_ok=True)
        shutil.copytree(bundle.path, partial / "bundle")
        shutil.copy(THIRD_PARTY_LICENSES, partial)
    print(f"{site}: open it with python -m mlc_controlnet serve {shlex.quote(str(site))}")
