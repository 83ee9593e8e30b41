"""Find the files that are not Python code: in a checkout, or inside an installed package.

A wheel carries tuning records, the built demo page and the engine in `mlc_controlnet/packaged/` (setup.py copies them).
In a checkout, which an editable install uses too, they are at the top level, and page and engine are built when needed.
"""

from pathlib import Path

from mlc_controlnet.errors import UserError

_PACKAGE = Path(__file__).parent
_PACKAGED = _PACKAGE / "packaged"
_ROOT = _PACKAGE.parent

IS_CHECKOUT = not _PACKAGED.is_dir()
TUNING_DB = (_ROOT if IS_CHECKOUT else _PACKAGED) / "tuning_db"  # a folder of records for each target
BUNDLED_MODELS = _PACKAGE / "models"
THIRD_PARTY_LICENSES = _PACKAGE / "THIRD_PARTY_LICENSES.txt"

PAGE = _PACKAGED / "page"  # the built demo page; in a wheel that was built with Node
ENGINE = _PACKAGED / "engine"  # the built engine; in a wheel that was built with Node

WEB = _ROOT / "web"  # sources of the demo page and the engine; in a checkout only
README = _ROOT / "README.md"  # this and the next two get the tables of `bench report`; in a checkout only
PERFORMANCE = _ROOT / "docs" / "performance.md"
SOFTWARE_ADAPTERS = _ROOT / "docs" / "software_adapters.md"

DIST = Path("dist")  # the folder that commands write to, below the working directory


def check_checkout(command: str) -> None:
    """Raise UserError if this is an installed package: `command` needs the project's sources."""
    if not IS_CHECKOUT:
        raise UserError(
            command,
            f"an installed package ({_PACKAGE})",
            "a checkout of the project, with web/ and docs/",
            "clone the repository and run the command there",
        )
