"""The defaults of options that several commands share."""

from mlc_controlnet.locations import DIST

BUNDLE = DIST / "circles-llvm"
SITE = DIST / "site"
ENGINE = DIST / "engine"
