"""What the documents say is so: links and pictures exist, commands parse, the tree is the tree."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from mlc_controlnet.cli.main import _parser

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path
    for glob in ("*.md", "docs/*.md", "web/*.md", "mlc_controlnet/**/*.md", "tuning_db/*.md")
    for path in ROOT.glob(glob)
)
PACKAGE = ROOT / "mlc_controlnet"
WRITTEN = ("dist/", "runs/", "out/", "../dist", "mlc_controlnet/packaged/")  # what commands write
FOREIGN = {"docs/train.md"}  # of lllyasviel/ControlNet
FRONTS = ("python build.py ", "python -m mlc_controlnet ", "mlc-controlnet ")
NOT_CODE = {"LICENSE", "MANIFEST.in", "pyproject.toml"}  # top-level files that the tree does not explain
in_every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


@in_every_document
def test_links_and_pictures_exist(path: Path) -> None:
    targets = re.findall(r"\]\(([^):#]+)\)|(?:src|srcset)=\"([^\":]+)\"", path.read_text())
    missing = [link or source for link, source in targets if not (path.parent / (link or source)).exists()]
    assert missing == []


def commands(text: str) -> list[str]:
    """The project's commands in indented blocks, in fences and between backticks, without comments."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    spans = re.findall(r"`([^`\n]+)`", text)
    found = [words.strip().removeprefix(".venv/bin/") for words in (*lines, *spans)]
    return [re.sub(r"\s+#.*", "", words) for words in found if words.startswith(FRONTS)]


@in_every_document
def test_commands_parse(path: Path) -> None:
    for command in commands(path.read_text()):
        words = shlex.split(command)
        arguments = ["build", *words[2:]] if words[1] == "build.py" else words[3 if words[1] == "-m" else 1 :]
        if "|" in arguments or "..." in arguments:  # a list of commands, or an example with a part left out
            continue
        if words[0] == "mlc-controlnet" and len(arguments) == 1:  # only the command's name
            arguments.append("--help")
        try:
            _parser().parse_args(arguments)
        except SystemExit as error:
            assert error.code == 0, command  # --help and --version end with 0


@in_every_document
def test_files_and_folders_between_backticks_exist(path: Path) -> None:
    """Names are relative to the repository, to mlc_controlnet/, to the document, or to the file named before."""
    folders = [ROOT, PACKAGE, path.parent]
    missing = []
    for name in re.findall(r"`([\w.-]+/(?:[\w./-]*(?:\.py|\.ts|\.md|/))?)`", path.read_text()):
        found = [folder / name for folder in folders if (folder / name).exists()]
        if found:
            folders[3:] = [found[0].parent]
        elif not name.startswith(WRITTEN) and name not in FOREIGN:
            missing.append(name)
    assert missing == []


def test_the_first_pictures_can_be_drawn() -> None:
    """The command lines of README name files that are there."""
    images = re.findall(r"--control-image (\S+)", (ROOT / "README.md").read_text())
    assert len(images) == 2 and all((ROOT / image).is_file() for image in images)


def tree_of_readme() -> dict[str, set[str]]:
    """Folder -> the entries that README lists below it; "" is the top level. Folders end with /."""
    (block,) = re.findall(r"## The tree\n\n```\n(.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    tree: dict[str, set[str]] = {}
    parents: list[str] = []
    for line in block.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        parents[depth:] = [name]
        tree.setdefault("".join(parents[:depth]), set()).add(name)
    return tree


def entries(folder: str) -> set[str]:
    """The entries of a folder that git tracks or would track, without hidden files, documents and __init__.py."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder or "."]
    files = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    found = set()
    for file in files:
        if (ROOT / file).is_file():
            name, is_folder, _ = file.removeprefix(folder).partition("/")
            found.add(name + is_folder)
    return {name for name in found if not name.startswith(".") and not name.endswith(".md") and name != "__init__.py"}


@pytest.mark.parametrize("folder", sorted(tree_of_readme()))
def test_the_tree_in_readme_is_the_tree(folder: str) -> None:
    """The top level and mlc_controlnet/ are complete; other folders that are opened list all their folders."""
    real = entries(folder)
    if folder == "":
        real -= NOT_CODE
    elif folder == "mlc_controlnet/":
        real -= {"py.typed", "THIRD_PARTY_LICENSES.txt"}
    else:
        real = {name for name in real if name.endswith("/")}
    assert tree_of_readme()[folder] == real
