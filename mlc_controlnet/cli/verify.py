"""`verify`: check every file of a bundle against its hash."""

import argparse
from pathlib import Path

from mlc_controlnet.cli.defaults import BUNDLE as DEFAULT_BUNDLE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bundle", type=Path, nargs="?", default=DEFAULT_BUNDLE, help=f"the bundle's folder; default: {DEFAULT_BUNDLE}"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from mlc_controlnet.bundle.reader import verify_bundle

    bundle = verify_bundle(options.bundle)
    files = bundle.manifest.files
    megabytes = sum(entry.bytes for entry in files) / 1e6
    print(f"{bundle.path}: {len(files)} files, {megabytes:.1f} MB, all as the manifest says; sha256 {bundle.sha256}")
