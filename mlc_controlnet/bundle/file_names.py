"""The names that files of a bundle have."""

from pathlib import PurePosixPath

MANIFEST_NAME = "manifest.json"


def is_inside(path: str) -> bool:
    """Return whether `path` is a plain relative path, which cannot leave its folder on any system."""
    parts = PurePosixPath(path).parts
    plain = bool(parts) and path == "/".join(parts) and not {"..", "/"} & set(parts)
    return plain and not set("\\:\0") & set(path)
