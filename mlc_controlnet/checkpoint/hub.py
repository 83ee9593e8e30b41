"""Hub ids: `org/name`, `org/name@revision` and `org/name/file.safetensors@revision`, through huggingface_hub.

It shows its own progress bar, keeps what it downloaded and takes the user's own login.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import huggingface_hub
from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

from mlc_controlnet.checkpoint.weight_file import SUFFIXES
from mlc_controlnet.errors import UserError

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
    """None for what is no hub id: a hub id never starts with a dot or a slash, and a file ends as weights do."""
    match = _ID.fullmatch(text)
    if match is None or (match["file"] and not match["file"].endswith(SUFFIXES)):
        return None
    return HubFile(match["repo"], match["file"], match["revision"])


def list_files(source: HubFile) -> list[str]:
    """The paths of all files of the repository at its revision."""
    return _ask(source, lambda: huggingface_hub.list_repo_files(source.repo, revision=source.revision))


def download(source: HubFile) -> Path:
    """One file; where it lies on this machine now."""
    return Path(
        _ask(source, lambda: huggingface_hub.hf_hub_download(source.repo, source.file, revision=source.revision))
    )


def download_folder(source: HubFile, files: Sequence[str]) -> Path:
    """Some files of a repository; the folder on this machine that they lie in as they do there."""
    return Path(
        _ask(
            source,
            lambda: huggingface_hub.snapshot_download(
                source.repo, revision=source.revision, allow_patterns=list(files)
            ),
        )
    )


def _ask(source: HubFile, request: Callable[[], Result]) -> Result:
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
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"hub id {source}",
            f"no such file or folder here, and no answer from the hub ({cause})",
            "a path, or a hub that can be reached",
            "check the spelling and the network",
        ) from error
