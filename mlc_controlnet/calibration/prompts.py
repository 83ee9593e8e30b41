"""The prompts of `--calibrate`, from the command line or from a text file."""

from pathlib import Path

from mlc_controlnet.errors import UserError

_WANTED = "a prompt, or a text file with a prompt on each line"


def read_prompts(text: str) -> tuple[str, ...]:
    """Read a text file with a prompt on each line, or take `text` as a prompt if there is no such file.

    Raises:
        UserError: there is no prompt, the file is not text, or a name that ends with .txt has no file.
    """
    if not text.strip():
        raise UserError("--calibrate", "no prompt", _WANTED, "write a prompt, as you will draw with")
    path = Path(text)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError:  # too long for a name
        return (text.strip(),)
    subject = f"--calibrate {text}"
    if is_folder:
        raise UserError(subject, "a folder", _WANTED, "pass one of its files")
    if is_file:
        return _read_file(path, subject)
    if path.suffix.lower() == ".txt":
        raise UserError(subject, "no such file", _WANTED, "check the path")
    return (text.strip(),)


def _read_file(path: Path, subject: str) -> tuple[str, ...]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        got = f"byte {error.start} of {len(data)} that is not UTF-8"
        raise UserError(subject, got, _WANTED, "save it as UTF-8 text") from None
    if "\0" in text:
        raise UserError(subject, "a file with zero bytes", _WANTED, "save it as UTF-8 text")
    # Not splitlines(): U+2028 and U+0085 end no line of a text file.
    prompts = tuple(line.strip() for line in text.split("\n") if line.strip())
    if not prompts:
        got = f"a file without a prompt, of {len(data)} bytes"
        raise UserError(subject, got, _WANTED, "write prompts into it, as you will draw with")
    return prompts
