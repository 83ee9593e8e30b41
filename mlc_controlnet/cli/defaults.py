"""What commands read if the command line does not say."""

from mlc_controlnet.locations import DIST

BUNDLE = DIST / "circles-llvm"
SITE = DIST / "site"
ENGINE = DIST / "engine"
