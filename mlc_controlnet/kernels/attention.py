"""The attention that a kernel is asked for: every size known when the kernel is made.

Axes: B batch, S queries, K keys, H heads, D head size.
"""

from dataclasses import dataclass
from typing import Any, Literal

from mlc_controlnet.kernels.vectors import LANES

Operand = Literal["q", "k", "v"]
Layout = Literal["apart", "together", "shared"]

LOWEST = -1e30  # below every score; finite: WGSL has no infinity, and a tile with every key masked gives no NaN


@dataclass(frozen=True)
class Attention:
    """softmax(scale * q k^T + bias) v with q [B, S, H, D], k and v [B, K, H, D].

    `bias_shape` is the shape of an additive mask that broadcasts to [B, H, S, K], or None. `causal` hides the keys
    after the query: "TopLeft" pairs the first query with the first key, "BottomRight" the last with the last.

    `layout` says where q, k and v lie, heads side by side. "apart": a tensor each. "together": one tensor
    [B, S, 3 H D], whose rows have q, then k, then v. "shared": q has a tensor, k and v lie in the rows of a tensor
    [B, K, W] that other attentions read as well; W and the two columns are known when the kernel runs, not before, so
    that all of these share one kernel.
    """

    batch: int
    queries: int
    keys: int
    heads: int
    head_size: int
    dtype: str
    scale: float
    bias_shape: tuple[int, ...] | None = None
    causal: Literal["TopLeft", "BottomRight"] | None = None
    layout: Layout = "apart"

    @property
    def width(self) -> int:
        """Numbers of a token in all heads."""
        return self.heads * self.head_size

    @property
    def query_shape(self) -> tuple[int, int, int]:
        """Shape of the output, and of q unless it lies together with k and v."""
        return (self.batch, self.queries, self.width)

    @property
    def key_shape(self) -> tuple[int, int, int]:
        """Shape of k and of v if they lie apart."""
        return (self.batch, self.keys, self.width)

    @property
    def axes(self) -> tuple[int, ...]:
        """Loops of the multiply-adds, for tuning records: the last one is of both products."""
        return (self.batch, self.heads, self.queries, self.keys, 2 * self.head_size)

    @property
    def form(self) -> tuple[str, ...]:
        """What else a kernel depends on, for tuning records."""
        return (self.layout,) if self.causal is None else (self.layout, f"causal {self.causal}")

    def is_supported(self) -> bool:
        """Return whether there is a kernel: heads of whole vectors, float16 or float32, a bias that broadcasts."""
        scores = (self.batch, self.heads, self.queries, self.keys)
        bias = scores if self.bias_shape is None else self.bias_shape
        return (
            self.head_size % LANES == 0
            and self.dtype in ("float16", "float32")
            and len(bias) == len(scores)
            and all(has in (1, want) for has, want in zip(bias, scores, strict=True))
            and (self.bias_shape is None or self.layout == "apart")
        )

    def index(self, operand: Operand, place: Any, b: Any, row: Any, h: Any, number: Any) -> list[Any]:
        """Return the index of a number of head h, in a row of q, k or v, into the tensor that has it.

        Args:
            place: of layout "shared": a buffer with what `place_of` gives.
        """
        column = h * self.head_size + number
        if self.layout == "together":
            column += "qkv".index(operand) * self.width
        if self.layout != "shared" or operand == "q":
            return [b, row, column]
        return [((b * self.keys + row) * place[0] + place[1 + "kv".index(operand)]) * LANES + column]

    def place_of(self, width: int, key_column: int, value_column: int) -> list[int]:
        """Return the int32 [3] that a kernel of layout "shared" reads, in vectors of LANES, which must be whole."""
        assert not any(number % LANES for number in (width, key_column, value_column))
        return [number // LANES for number in (width, key_column, value_column)]

    def bias_index(self, b: Any, h: Any, query: Any, key: Any) -> list[Any]:
        """Return the index of the bias of the score (b, h, query, key): axes of size 1 are shared."""
        assert self.bias_shape is not None
        return [axis if size > 1 else 0 for axis, size in zip((b, h, query, key), self.bias_shape, strict=True)]

    def is_visible(self, query: Any, key: Any) -> Any:
        """Return whether a query attends to a key: the key is in the sequence, and a causal mask does not hide it."""
        inside = key < self.keys
        if self.causal is None:
            return inside
        ahead = 0 if self.causal == "TopLeft" else self.keys - self.queries
        return (key < self.keys) & (key <= query + ahead)
