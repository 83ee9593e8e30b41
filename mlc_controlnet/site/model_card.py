"""What a model's folder says of itself, for the list of models of a site: its card's licence, and its picture."""

from pathlib import Path

from mlc_controlnet.errors import print_notice

CARD = "README.md"
PICTURE = "picture.png"


def licence_in(folder: Path) -> str:
    """Return the licence that a model's card names in its metadata, as cards on the Hugging Face Hub do; or "".

    A name of the publisher's own, `license_name`, comes before `license: other`. A card that cannot be read is noticed
    and has no licence: a build does not stop for it.
    """
    from huggingface_hub import metadata_load

    card = folder / CARD
    if not card.is_file():
        return ""
    try:
        metadata = metadata_load(card) or {}
    except Exception as error:  # of YAML's parser, or of the text's encoding
        print_notice(f"{card}: its metadata is not read: {str(error).splitlines()[0]}")
        return ""
    licence = metadata.get("license_name") or metadata.get("license")
    return licence if isinstance(licence, str) else ""


def picture_in(folder: Path) -> Path | None:
    """Return the picture that shows what the model in this folder draws; None without one."""
    picture = folder / PICTURE
    return picture if picture.is_file() else None
