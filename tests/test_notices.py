"""What a notice says besides its sentence, for pages in other languages."""

import pickle
import re
from pathlib import Path

from PIL import Image

from mlc_controlnet.images.prepare import prepare_image
from mlc_controlnet.notices import CODES, Notice

TWIN = Path(__file__).parent.parent / "web" / "src" / "engine" / "notices.ts"


def test_the_codes_and_their_values_are_those_of_the_engine_in_the_browser():
    source = TWIN.read_text(encoding="utf-8")
    declared = source[source.index("interface NoticeValues") : source.index("export type NoticeCode")]
    entries = re.findall(r'^  readonly "?([\w-]+)"?: \{(.*?)\};$', declared, re.DOTALL | re.MULTILINE)
    theirs = {code: set(re.findall(r"readonly (\w+):", values)) for code, values in entries}
    assert CODES.items() <= theirs.items()


def test_a_notice_is_its_sentence_and_keeps_its_values_between_processes():
    (notice,) = prepare_image(Image.new("RGB", (50, 50)), 16, 24, "control image").notices
    kept = pickle.loads(pickle.dumps(notice))
    assert kept == "control image: 50x50 was scaled to cover 24x16 and cropped around its centre"
    assert isinstance(kept, Notice)
    assert (kept.code, kept.values) == (
        "scaled",
        {"subject": "control image", "from": "50x50", "to": "24x16", "how": "cropped"},
    )
