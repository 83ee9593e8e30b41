"""Put what lies outside the package's folder into a distribution: tuning records, the demo page and the engine.

pyproject.toml describes everything else. A wheel gets these files in `mlc_controlnet/packaged/`. If web/node_modules is
there, Node builds the page and the engine. A source distribution carries them built, so that its wheel needs no Node.
"""

import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent.resolve()
WEB = ROOT / "web"
BUILT = WEB / "built"  # in an unpacked source distribution


def build_web(page: Path, engine: Path) -> bool:
    """Build the demo page and the engine into two folders; return False if Node or its packages are missing."""
    if not (WEB / "node_modules").is_dir() or shutil.which("npm") is None:
        return False
    commands = (
        ["vite", "build", "--outDir", str(page)],
        ["vite", "build", "--config", "vite.engine.config.ts", "--outDir", str(engine)],
        ["tsc", "-p", "tsconfig.types.json", "--outDir", str(engine / "types")],
    )
    for command in commands:
        subprocess.run(["npm", "exec", "--", *command], cwd=WEB, check=True)
    return True


class BuildPackage(build_py):
    """Copies the package, then adds the files from outside its folder."""

    def run(self) -> None:
        if self.editable_mode:  # an editable install finds them in the checkout
            super().run()
            return
        package = (Path(self.build_lib) / "mlc_controlnet").resolve()
        shutil.rmtree(package, ignore_errors=True)  # a module that was deleted since the last build must not come along
        super().run()
        packaged = package / "packaged"
        shutil.copytree(ROOT / "tuning_db", packaged / "tuning_db")
        if build_web(packaged / "page", packaged / "engine"):
            return
        if BUILT.is_dir():
            shutil.copytree(BUILT, packaged, dirs_exist_ok=True)
            return
        self.warn("this wheel has no demo page and no engine: they need Node 20 and `npm ci` in web/")


class SourceDistribution(sdist):
    """Adds the built page and engine to the sources."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        built = (Path(base_dir) / "web" / "built").resolve()
        if not build_web(built / "page", built / "engine"):
            self.warn("this source distribution has no demo page and no engine: they need Node 20 and `npm ci` in web/")


setup(cmdclass={"build_py": BuildPackage, "sdist": SourceDistribution})
