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
# What a component of such weights must keep, against torch in float32 with the weights as they were, in dB. Kernels are
# tested against decoded weights; this bound is for a weight that was coded or laid out wrongly.
LEAST_DB = {"int8": 35.0, "int4": 8.0, "palette6": 18.0, "palette4": 8.0, MIXED: 8.0}
