r"""Read prompts as sd-webui's users write them.

    (word)      weight 1.1          (word:1.2)  weight 1.2          [word]  weight 1 / 1.1
    ((word))    weight 1.1 * 1.1    \( \) \[ \] \\  the character    BREAK   begins a new chunk

The rule is that of sd-webui's `parse_prompt_attention` (AUTOMATIC1111, module prompt_parser). What is no weight stays
text, as there: `(a:x)` is "a:x" at weight 1.1. In one place they differ: BREAK between brackets begins a new chunk here
too, where sd-webui multiplies its mark by the weight and reads a word "BREAK" of negative weight.

Twin: web/src/engine/prompt_syntax.ts, the same functions in the same order. This module does not import numpy: requests
are checked with it.
"""

import math
import re
from dataclasses import dataclass

from mlc_controlnet.errors import UserError

# "plain" reads a prompt as diffusers does: brackets are text, and what exceeds one chunk is cut. The default is
# "webui", because in prompts that are shared brackets mean weights, and every program that draws in a page or a window
# reads them so. Without brackets, backslashes, BREAK and AND, a prompt that fits in one chunk is the same in both.
WEBUI, PLAIN = PROMPT_SYNTAXES = ("webui", "plain")

ROUND, SQUARE = 1.1, 1 / 1.1  # the factors of (word) and [word]
FLOAT32_MAX = 3.4028234663852886e38

_SPACE = r"[^\S\x1c-\x1f\x85]"  # \s of JavaScript, but for the byte order mark
_ATTENTION = re.compile(rf"\\[()\[\]\\]?|[()\[\]]|:{_SPACE}*([+-]?[.0-9]+){_SPACE}*\)|[^\\()\[\]:]+|:")
_BREAK = re.compile(rf"{_SPACE}*(?<!\w)BREAK(?!\w){_SPACE}*")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")
_NETWORK = re.compile(r"<(lora|lyco|hypernet):[^>]+>")
_AND = re.compile(r"(?<!\w)AND(?!\w)")
_EDITING = re.compile(r"\\.|[()\[\]:|]", re.DOTALL)
_WHEN = re.compile(rf"{_SPACE}*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?{_SPACE}*")


@dataclass
class Segment:
    """A piece of a prompt whose words have one weight."""

    text: str
    weight: float


def parse_prompt(prompt: str, subject: str = "prompt") -> list[list[Segment]]:
    """Divide a prompt into segments: one list for each part between BREAKs, each with one segment at least.

    Raises:
        UserError: names `subject`; a weight is no finite number in float32, or the prompt uses what sd-webui computes
            during drawing: prompt editing, alternation, AND, or networks such as `<lora:file:1>`.
    """
    _refuse_what_changes_the_drawing(prompt, subject)
    parts: list[list[Segment]] = [[]]
    segments: list[Segment] = []  # of all parts
    round_brackets: list[int] = []  # the number of segments before each bracket that is open
    square_brackets: list[int] = []

    def append(text: str) -> None:
        segments.append(Segment(text, 1.0))
        parts[-1].append(segments[-1])

    def multiply(start: int, factor: float) -> None:
        for segment in segments[start:]:
            segment.weight *= factor

    for match in _ATTENTION.finditer(prompt):
        symbol, weight = match[0], match[1]
        if symbol.startswith("\\"):
            append(symbol[1:])
        elif symbol == "(":
            round_brackets.append(len(segments))
        elif symbol == "[":
            square_brackets.append(len(segments))
        elif weight is not None and round_brackets:
            multiply(round_brackets.pop(), _parse_number(weight, subject))
        elif symbol == ")" and round_brackets:
            multiply(round_brackets.pop(), ROUND)
        elif symbol == "]" and square_brackets:
            multiply(square_brackets.pop(), SQUARE)
        else:
            for index, text in enumerate(_BREAK.split(symbol)):
                if index > 0:
                    parts.append([])
                append(text)
    for start in round_brackets:
        multiply(start, ROUND)
    for start in square_brackets:
        multiply(start, SQUARE)
    for segment in segments:
        _check_weight(segment.weight, subject)
    return [_merged(part) for part in parts]


def _refuse_what_changes_the_drawing(prompt: str, subject: str) -> None:
    plain = "choose the prompt syntax plain if this is text"
    network = _NETWORK.search(prompt)
    if network is not None:
        remedy = "leave this out"
        if network[1] != "hypernet":
            remedy = "merge the file into a bundle: build.py --lora FILE:WEIGHT, and leave this out"
        raise UserError(subject, network[0], "no networks: a bundle's weights do not change", remedy)
    if _AND.search(prompt) is not None:
        remedy = f"write one prompt, or `and` in small letters; {plain}"
        raise UserError(subject, "AND, which composes several prompts", "one prompt", remedy)
    editing = _find_editing(prompt)
    if editing is not None:
        remedy = f"write the words that you want most; {plain}, or write \\[ and \\]"
        raise UserError(subject, editing, "words that are the same in every step", remedy)


def _find_editing(prompt: str) -> str | None:
    """Return the first `[a:b:0.4]`, `[a:0.4]`, `[a::0.4]` or `[a|b]`; None if there is none."""
    opened: list[list[tuple[str, int]]] = []  # an open bracket and the separators directly in it, with their places
    for match in _EDITING.finditer(prompt):
        symbol, start = match[0], match.start()
        if symbol in ("(", "["):
            opened.append([(symbol, start)])
        elif symbol in (":", "|") and opened:
            opened[-1].append((symbol, start))
        elif symbol in (")", "]"):
            if not opened or opened[-1][0][0] + symbol not in ("()", "[]"):
                opened.clear()
                continue
            (bracket, begin), *separators = opened.pop()
            if bracket == "[" and _edits(separators, prompt, start):
                return prompt[begin : start + 1]
    return None


def _edits(separators: list[tuple[str, int]], prompt: str, end: int) -> bool:
    if any(symbol == "|" for symbol, _ in separators):
        return True
    return 1 <= len(separators) <= 2 and _WHEN.fullmatch(prompt, separators[-1][1] + 1, end) is not None


def _parse_number(text: str, subject: str) -> float:
    if _NUMBER.fullmatch(text) is None:
        raise UserError(subject, f"the weight {text}", "a number, for example 1.2", "correct it")
    return float(text)


def _check_weight(weight: float, subject: str) -> None:
    if not (math.isfinite(weight) and abs(weight) <= FLOAT32_MAX):
        raise UserError(subject, "a weight beyond float32", "weights of about 0.5 to 1.5", "choose smaller weights")


def _merged(segments: list[Segment]) -> list[Segment]:
    """Join neighbours of the same weight: their words are tokenized as one text."""
    merged = segments[:1]
    for segment in segments[1:]:
        if segment.weight == merged[-1].weight:
            merged[-1].text += segment.text
        else:
            merged.append(segment)
    return merged or [Segment("", 1.0)]
