"""Hub ids: `org/name`, `org/name@revision` and `org/name/file.safetensors@revision`, through huggingface_hub.

huggingface_hub shows a progress bar, caches downloads and uses the user's login.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name

from mlc_controlnet.checkpoint.weight_file import SUFFIXES
from mlc_controlnet.errors import UserError, print_notice

Result = TypeVar("Result")
_NAME = r"[A-Za-z0-9_][\w.-]*"
_ID = re.compile(rf"(?P<repo>{_NAME}/{_NAME})(/(?P<file>[\w./ -]+))?(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class HubFile:
    """A repository on the hub, or one file in it.

    Attributes:
        file: the file's path there, or None for the repository.
        revision: a branch, a tag or a commit; None: the newest.
    """

    repo: str
    file: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo + (f"/{self.file}" if self.file else "") + (f"@{self.revision}" if self.revision else "")


def parse_hub_id(text: str) -> HubFile | None:
    """Parse a hub id; None if `text` is not one.

    A hub id never starts with a dot or a slash, and the file in it has a suffix of weights.
    """
    match = _ID.fullmatch(text)
    if match is None or (match["file"] and not match["file"].endswith(SUFFIXES)):
        return None
    return HubFile(match["repo"], match["file"], match["revision"])


def list_files(source: HubFile) -> list[str]:
    """Return the paths of all files of the repository at its revision; without the hub, of those in the cache."""

    def in_cache() -> list[str] | None:
        folder = _cached_folder(source)
        if folder is None:
            return None
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    return _ask(source, lambda: huggingface_hub.list_repo_files(source.repo, revision=source.revision), in_cache)


def download(source: HubFile) -> Path:
    """Download one file, unless the cache has it. Returns its path on this machine."""
    assert source.file is not None, "a repository is downloaded by download_folder"
    file = source.file

    def in_cache() -> Path | None:
        return _cached_file(source, file)

    return _ask(
        source,
        lambda: Path(huggingface_hub.hf_hub_download(source.repo, file, revision=source.revision)),
        in_cache,
    )


def download_folder(source: HubFile, files: Sequence[str]) -> Path:
    """Download some files of a repository. Returns the folder on this machine with the repository's layout."""

    def in_cache() -> Path | None:
        folder = _cached_folder(source)
        return folder if folder is not None and all((folder / file).is_file() for file in files) else None

    return _ask(
        source,
        lambda: Path(
            huggingface_hub.snapshot_download(source.repo, revision=source.revision, allow_patterns=list(files))
        ),
        in_cache,
    )


def _cached_file(source: HubFile, file: str) -> Path | None:
    path = huggingface_hub.try_to_load_from_cache(source.repo, file, revision=source.revision)
    return Path(path) if isinstance(path, str) else None


def _cached_folder(source: HubFile) -> Path | None:
    """Return the repository at its revision in the hub's cache, which may hold a part of its files."""
    repository = Path(huggingface_hub.constants.HF_HUB_CACHE) / repo_folder_name(repo_id=source.repo, repo_type="model")
    revision = source.revision or "main"
    reference = repository / "refs" / revision
    folder = repository / "snapshots" / (reference.read_text().strip() if reference.is_file() else revision)
    return folder if folder.is_dir() else None


def _ask(source: HubFile, request: Callable[[], Result], in_cache: Callable[[], Result | None]) -> Result:
    """Ask the hub; if it cannot be reached, look into its cache on this machine."""
    try:
        return request()
    except GatedRepoError as error:
        got, remedy = "a model behind a licence", "accept it on the model's page, then run hf auth login"
        raise UserError(f"hub id {source}", got, "a model that you may read", remedy) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"hub id {source}",
            "no such file or folder here, and no such model on the hub",
            "a path, or a public model org/name or one that you are logged in for",
            "check the spelling, or run hf auth login",
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"hub id {source}", "no such revision", "a branch, tag or commit", "check @...") from error
    except (HTTPError, OSError) as error:
        is_offline = isinstance(error, OfflineModeIsEnabled) or huggingface_hub.constants.HF_HUB_OFFLINE
        cached = in_cache()
        if cached is not None:
            if not is_offline:
                print_notice(f"hub id {source}: the hub does not answer, so the copy in its cache is used")
            return cached
        if is_offline:
            raise UserError(
                f"hub id {source}",
                "no such file or folder here, nor a whole copy in the hub's cache, and HF_HUB_OFFLINE is set",
                "a path, or a hub id that is in the cache",
                "check the spelling, or unset HF_HUB_OFFLINE",
            ) from error
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"hub id {source}",
            f"no such file or folder here, and no answer from the hub ({cause})",
            "a path, or a hub that can be reached",
            "check the spelling and the network",
        ) from error
