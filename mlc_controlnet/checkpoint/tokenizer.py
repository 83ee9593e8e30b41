"""Read the tokenizer of a model as one file of the tokenizers library.

A diffusers folder has its own tokenizer. A single file has none: Stable Diffusion 1.x and 2.x share CLIP's vocabulary,
which is in the package open_clip_torch and on the hub.
"""

import gzip
from codecs import BOM_UTF8
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import CLIPTokenizer

from mlc_controlnet.checkpoint.hub import HubFile, download
from mlc_controlnet.checkpoint.json_file import read_json
from mlc_controlnet.checkpoint.source import TokenizerSource
from mlc_controlnet.errors import UserError

CLIP_ON_THE_HUB = "openai/clip-vit-large-patch14"
BPE_FILE = "bpe_simple_vocab_16e6.txt.gz"
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
ROLES = ("bos_token", "eos_token", "pad_token")
_BYTES = 256  # CLIP's vocabulary: every byte, every byte at a word's end, the merges, begin and end
_VOCABULARY = 49408


def read_tokenizer_folder(folder: Path) -> TokenizerSource:
    """Read a folder with tokenizer.json, or with vocab.json and merges.txt, as transformers saves a CLIPTokenizer.

    A file may begin with a byte order mark.

    Raises:
        UserError: the files are missing or damaged.
    """
    special_tokens = _special_tokens(folder)
    file = folder / "tokenizer.json"
    if file.is_file():
        data = _checked(file.read_bytes(), file)
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        vocabulary = read_json(folder / "vocab.json")
        merges_file = folder / "merges.txt"
        try:
            lines = merges_file.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise UserError(str(merges_file), f"no UTF-8 ({error})", "merges", "save the model again") from error
        merges = [line for line in lines if line.strip() and not line.startswith("#version")]
        data = _clip_json(vocabulary, merges, folder)
    else:
        wanted = "tokenizer.json, or vocab.json and merges.txt"
        raise UserError(str(folder), "no tokenizer", wanted, "save the model again")
    return TokenizerSource(_with_added_tokens(data, folder), special_tokens)


def find_clip_tokenizer(pad_token: str, tokenizer: Path | None) -> TokenizerSource:
    """Find CLIP's tokenizer for a model that has none of its own.

    Args:
        pad_token: the token that fills the rest of a prompt's ids.
        tokenizer: a folder with a tokenizer; None: that of open_clip_torch if it is installed, else the hub's.

    Raises:
        UserError: open_clip_torch is not installed, and the hub cannot be reached.
    """
    special_tokens = {"bos_token": BEGIN, "eos_token": END, "pad_token": pad_token}
    if tokenizer is not None:
        return TokenizerSource(read_tokenizer_folder(tokenizer).json, special_tokens)
    package = find_spec("open_clip")
    for folder in (package.submodule_search_locations or ()) if package else ():
        if (Path(folder) / BPE_FILE).is_file():
            return TokenizerSource(clip_json_of_merges(Path(folder) / BPE_FILE), special_tokens)
    try:
        path = download(HubFile(CLIP_ON_THE_HUB, "tokenizer.json"))
    except UserError as error:
        raise UserError(
            "tokenizer",
            f"a single file, which holds none, and {error.subject}: {error.got}",
            "CLIP's vocabulary",
            "pip install --no-deps open_clip_torch, or pass --tokenizer with a folder that has one",
        ) from error
    return TokenizerSource(_checked(path.read_bytes(), path), special_tokens)


def clip_json_of_merges(bpe_file: Path) -> bytes:
    """Make CLIP's tokenizer from its `bpe_simple_vocab_16e6.txt.gz`, whose lines are merges (arXiv 2103.00020).

    Raises:
        UserError: the file is damaged.
    """
    try:
        with gzip.open(bpe_file, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(str(bpe_file), f"a damaged file ({error})", "CLIP's vocabulary", "install it again") from error
    merges = lines[1 : _VOCABULARY - 2 * _BYTES - 2 + 1]
    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(m.split()) for m in merges), BEGIN, END]
    return _clip_json({token: number for number, token in enumerate(tokens)}, merges, bpe_file)


def _byte_letters() -> list[str]:
    """Map each byte to a printable letter, in the order of CLIP's ids: printable bytes first, mapped to themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(_BYTES + n) for n in range(_BYTES - len(printable))]


def _clip_json(vocabulary: Mapping[str, Any], merges: list[str], where: Path) -> bytes:
    pairs = [tuple(line.split()) for line in merges]
    try:
        text = CLIPTokenizer(vocab=dict(vocabulary), merges=pairs).backend_tokenizer.to_str()
    except Exception as error:  # the tokenizers library raises no narrower kind
        raise UserError(str(where), f"no vocabulary ({error})", "CLIP's", "save the model again") from error
    return text.encode()


def _checked(data: bytes, where: Path) -> bytes:
    data = data.removeprefix(BOM_UTF8)
    try:
        Tokenizer.from_str(data.decode())
    except Exception as error:  # the tokenizers library raises no narrower kind
        raise UserError(str(where), f"no tokenizer ({error})", "tokenizer.json", "save the model again") from error
    return data


def _with_added_tokens(data: bytes, folder: Path) -> bytes:
    """Add the tokens that older layouts keep in files of their own: words that somebody taught the text encoder.

    transformers writes them to added_tokens.json, and since version 4.34 also to tokenizer_config.json.
    """
    stated = _added_tokens(folder)
    tokenizer = Tokenizer.from_str(data.decode())
    known = tokenizer.get_vocab(with_added_tokens=True)
    missing = {token_id: token for token_id, token in stated.items() if token.content not in known}
    if not missing:
        return data
    tokenizer.add_tokens([missing[token_id] for token_id in sorted(missing)])
    for token_id, token in missing.items():
        got = tokenizer.token_to_id(token.content)
        if got != token_id:
            raise UserError(
                f"{folder}: added token {token.content!r}",
                f"id {token_id}",
                f"{got}: ids without a gap after the vocabulary",
                "save the tokenizer again",
            )
    return tokenizer.to_str().encode()


def _added_tokens(folder: Path) -> dict[int, AddedToken]:
    """Map ids to tokens. Only a token that is not special is normalized before the search, as in transformers."""
    file = folder / "added_tokens.json"
    try:
        tokens = {
            int(token_id): AddedToken(content, normalized=True)
            for content, token_id in (read_json(file).items() if file.is_file() else ())
        }
        file = folder / "tokenizer_config.json"
        decoder = (read_json(file) if file.is_file() else {}).get("added_tokens_decoder", {})
        return tokens | {int(token_id): AddedToken(**token) for token_id, token in decoder.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(str(file), f"no added tokens ({error})", "tokens and their ids", "save it again") from error


def _special_tokens(folder: Path) -> dict[str, str]:
    """List the special tokens of tokenizer_config.json, and of special_tokens_map.json (transformers before 4.34)."""
    files = [folder / "tokenizer_config.json", folder / "special_tokens_map.json"]
    found = [read_json(file) for file in files if file.is_file()]
    if found and "added_tokens_decoder" in found[0]:
        found = found[:1]
    usual = {"bos_token": BEGIN, "eos_token": END, "pad_token": END}
    result: dict[str, str] = {}
    for role in ROLES:
        stated = [config[role] for config in found if config.get(role) is not None]
        token = stated[-1] if stated else usual[role]
        result[role] = str(token["content"] if isinstance(token, dict) else token)
    return result
