"""Notices: how the inputs of a picture were changed, as sentences that also have a code and values.

Twin: web/src/engine/notices.ts, which has the meaning of each code. A page that draws with `serve` says the coded ones
in its own language. The notices that only Python makes are plain sentences.
"""

from collections.abc import Mapping
from typing import Any

CODES: Mapping[str, frozenset[str]] = {
    "prompt-cut": frozenset({"subject", "tokens", "cutText"}),
    "no-effect": frozenset({"subject", "why"}),
    "transparency": frozenset({"subject"}),
    "scaled": frozenset({"subject", "from", "to", "how"}),
    "part-enlarged": frozenset({"subject", "part", "drawn"}),
}


class Notice(str):
    """A sentence in English, for the user to read, with what it says for texts in other languages.

    Attributes:
        code: one of CODES.
        values: the values of that code, as JSON has them.
    """

    code: str
    values: Mapping[str, Any]

    def __new__(cls, text: str, code: str, values: Mapping[str, Any]) -> "Notice":
        assert values.keys() == CODES[code], (code, values)
        notice = super().__new__(cls, text)
        notice.code, notice.values = code, values
        return notice

    def __reduce__(self) -> tuple[type["Notice"], tuple[str, str, Mapping[str, Any]]]:
        """Keep code and values between processes."""
        return Notice, (str(self), self.code, self.values)
