"""The npm packages that the drawings and their names come from: fetched once by npm, checked against pinned hashes.

Archives are never unpacked to the disk: `read_json` reads one member in memory, so that no path in an archive matters.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlc_controlnet.errors import UserError
from mlc_controlnet.files import write_bytes

_LARGEST_MEMBER = 256 * 2**20  # bytes; the largest drawing set has 100 MiB of JSON


@dataclass(frozen=True)
class Package:
    """A package of the npm registry.

    Attributes:
        integrity: SHA-512 of the archive in base64, as the registry's `dist.integrity` without its prefix.
        licence: SPDX identifier of the content.
        author: who to credit for the content.
        style: the word that captions use for the manner of these drawings; None if the package has no drawings.
    """

    name: str
    version: str
    integrity: str
    licence: str
    author: str
    style: str | None = None

    @property
    def file_name(self) -> str:
        """Return the name that `npm pack` gives the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


# OpenMoji (CC-BY-SA 4.0) is left out: whether weights are an adaptation that would have to carry its licence is open.
DRAWINGS = (
    Package(
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
        "MIT",
        "Microsoft Corporation, Fluent Emoji",
        "glossy",
    ),
    Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        "MIT",
        "Microsoft Corporation, Fluent Emoji",
        "flat",
    ),
    Package(
        "@iconify-json/noto",
        "1.2.9",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        "Apache-2.0",
        "Google Inc, Noto Emoji",
        "noto",
    ),
    Package(
        "@iconify-json/noto-v1",
        "1.2.5",
        "/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        "Apache-2.0",
        "Google Inc, Noto Emoji, first version",
        "blob",
    ),
    Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        "CC-BY-4.0",
        "Twitter Inc and other contributors, Twemoji",
        "simple",
    ),
    Package(
        "@iconify-json/emojione",
        "1.2.3",
        "T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        "CC-BY-4.0",
        "EmojiTwo, from Emoji One 2",
        "round",
    ),
)
NAMES = Package(
    "emojibase-data",
    "17.0.0",
    "Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
    "MIT",
    "Miles Johnson, Emojibase; names and keywords: Unicode CLDR (Unicode-3.0)",
)


def credits_of_drawings() -> str:
    """Return the list of authors and licences that travels with weights trained on the drawings, as Markdown."""
    lines = [
        f"- {package.name} {package.version}: {package.author}, {package.licence}" for package in (*DRAWINGS, NAMES)
    ]
    return "\n".join(["# Trained on", "", *lines, "", "The drawings were recoloured, mirrored, moved and scaled.", ""])


def fetch(package: Package, folder: Path, log: Callable[[str], None] = print) -> Path:
    """Return the archive of `package` in `folder`, fetched by `npm pack` if it is not there yet.

    Raises:
        UserError: npm is missing, cannot fetch the package, or the archive has another hash.
    """
    archive = folder / package.file_name
    if archive.is_file():
        _check(archive.read_bytes(), package, str(archive))
        return archive
    named = f"{package.name}@{package.version}"
    if shutil.which("npm") is None:
        remedy = f"install Node.js, or put the archive of {named} from the npm registry into {folder}"
        raise UserError("npm", "no such program", "npm on the PATH", remedy)
    log(f"fetching {named} ({package.licence})")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as partial:
        command = ["npm", "pack", named, "--ignore-scripts", "--pack-destination", partial]
        done = subprocess.run(command, capture_output=True, text=True)
        fetched = Path(partial) / package.file_name
        if done.returncode or not fetched.is_file():
            said = (done.stderr.strip() or "nothing was written").splitlines()[-1]
            remedy = f"check the network and npm's registry, or put the archive into {folder}"
            raise UserError(named, said, "an archive from npm pack", remedy)
        data = fetched.read_bytes()
        _check(data, package, named)
        return write_bytes(archive, data)


def read_json(archive: Path, member: str) -> Any:
    """Return the content of a JSON file in an npm archive; `member` is its path below `package/`.

    Raises:
        UserError: there is no such file in it, or it is larger than any file that training reads.
    """
    with tarfile.open(archive, "r:gz") as tar:
        try:
            info = tar.getmember(f"package/{member}")
        except KeyError:
            info = None
        file = tar.extractfile(info) if info is not None and info.size <= _LARGEST_MEMBER else None
        if file is None:
            raise UserError(str(archive), f"no plain {member}", "the file of the pinned version", "delete the archive")
        return json.load(file)


def _check(data: bytes, package: Package, subject: str) -> None:
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    if digest != package.integrity:
        remedy = "delete it, and do not use the registry that it came from"
        raise UserError(subject, f"sha512-{digest}", f"sha512-{package.integrity}", remedy)
