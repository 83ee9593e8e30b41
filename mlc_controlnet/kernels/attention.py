"""The attention that a kernel is asked for: every size known when the kernel is made.

Axes: B batch, S queries, K keys, H heads, D head size.
"""

from dataclasses import dataclass
from typing import Any, Literal

LANES = 4  # a head is read as vectors of four numbers


@dataclass(frozen=True)
class Attention:
    """softmax(scale * q k^T + bias) v with q [B, S, H, D], k and v [B, K, H, D].

    `bias_shape` is the shape of an additive mask that broadcasts to [B, H, S, K], or None. `causal` hides the keys
    after the query: "TopLeft" pairs the first query with the first key, "BottomRight" the last with the last.
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

    @property
    def query_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, self.queries, self.heads, self.head_size)

    @property
    def key_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, self.keys, self.heads, self.head_size)

    def is_supported(self) -> bool:
        """Whether there is a kernel: heads of whole vectors, float16 or float32, a bias that broadcasts."""
        scores = (self.batch, self.heads, self.queries, self.keys)
        bias = scores if self.bias_shape is None else self.bias_shape
        return (
            self.head_size % LANES == 0
            and self.dtype in ("float16", "float32")
            and len(bias) == len(scores)
            and all(has in (1, want) for has, want in zip(bias, scores, strict=True))
        )

    def bias_index(self, b: Any, h: Any, query: Any, key: Any) -> list[Any]:
        """Where the score (b, h, query, key) finds its bias: axes of size 1 are shared."""
        assert self.bias_shape is not None
        return [axis if size > 1 else 0 for axis, size in zip((b, h, query, key), self.bias_shape, strict=True)]

    def is_visible(self, query: Any, key: Any) -> Any:
        """The predicate of a key that counts for a query: inside the sequence and not in a causal mask's future."""
        inside = key < self.keys
        if self.causal is None:
            return inside
        ahead = 0 if self.causal == "TopLeft" else self.keys - self.queries
        return (key < self.keys) & (key <= query + ahead)
