"""Where the files that are not Python code are: beside a checkout, or inside an installed package."""

from pathlib import Path

_PACKAGE = Path(__file__).parent
_CHECKOUT = _PACKAGE.parent

TUNING_DB = _CHECKOUT / "tuning_db"  # a folder of records for each target
WEB = _CHECKOUT / "web"  # sources of the demo page and the engine
README = _CHECKOUT / "README.md"
BUNDLED_MODELS = _PACKAGE / "models"
DIST = Path("dist")  # what commands write, below the folder they are called in
