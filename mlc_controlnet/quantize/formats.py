"""The formats of `--weights`, by name."""

from mlc_controlnet.quantize.scheme import LINEAR, PALETTE

FLOAT16 = "float16"  # weights as they are
MIXED = "mixed"  # each weight has one of MIXED_FORMATS
FORMATS: dict[str, tuple[str, int]] = {  # name -> method and bits of a code
    "int8": (LINEAR, 8),
    "int4": (LINEAR, 4),
    "palette6": (PALETTE, 6),
    "palette4": (PALETTE, 4),
    "palette2": (PALETTE, 2),  # only as a part of MIXED
}
MIXED_FORMATS = ("palette2", "palette4", "palette6", "int8")
# What a component of such weights must keep, against torch in float32 with the weights as they were, in dB. The bundled
# model's worst component has 41.7, 22.0, 29.6 and 18.9 dB in this order, 16.1 mixed with 2.5 bits, and draws what was
# asked for; with 2 bits everywhere it has 6.2, and wrong colours (docs/performance.md). A mistake is at 0 dB.
LEAST_DB = {"int8": 35.0, "int4": 15.0, "palette6": 24.0, "palette4": 15.0, MIXED: 15.0}
MORE_BITS = {"int4": "palette6", "palette4": "palette6", "palette6": "int8", "int8": FLOAT16}
