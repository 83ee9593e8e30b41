"""Palettes: for a group of outputs, the 2^bits numbers that are nearest to its weights, by k-means in one dimension.

Lloyd's iterations (doi 10.1109/TIT.1982.1056489) run on a histogram of each group, so they cost the same for any number
of weights: a mean is a difference of two cumulative sums. They begin with as many entries as the cube root of the
density wants, which is the best for many entries (Panter and Dite, doi 10.1109/JRPROC.1951.230419). Of every weight
only its bin is computed.

Where it is known how much a weight's error counts, it is in the histogram so many times, so that entries lie densest
where the weights of large inputs are (as SqueezeLLM's, arXiv 2306.07629).
"""

import torch

BINS = 4096
ITERATIONS = 60
WEIGHTS_AT_ONCE = 2**22  # bounds memory


def choose_palettes(
    weight: torch.Tensor, bits: int, group: int, importance: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes uint8 [N, K] and tables float16 [N / group, 2^bits] of a float32 weight [N, K].

    importance: how much the error of an input's weights counts, above 0, float32 [1 or N, K]; None: all the same.
    """
    outputs, inputs = weight.shape
    grouped = weight.reshape(outputs // group, group * inputs)
    rows = max(1, WEIGHTS_AT_ONCE // grouped.shape[1])
    if importance is None:
        parts = [_of_groups(part, 2**bits) for part in grouped.split(rows)]
    else:
        counts = importance.expand_as(weight).reshape(grouped.shape).split(rows)
        parts = [_of_groups(part, 2**bits, own) for part, own in zip(grouped.split(rows), counts, strict=True)]
    codes, tables = (torch.cat(own) for own in zip(*parts, strict=True))
    return codes.reshape(outputs, inputs), tables


def nearest_entries(tables: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes, uint8, and decoded numbers, float32, of values [groups, numbers of each] with sorted float32 tables
    [groups, entries]."""
    borders = (tables[:, 1:] + tables[:, :-1]) / 2
    codes = torch.searchsorted(borders, values)
    return codes.to(torch.uint8), tables.gather(1, codes)


def _of_groups(
    weights: torch.Tensor, entries: int, importance: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the codes and tables of float32 [groups, weights of each]; `importance` has the same shape."""
    groups = weights.shape[0]
    low, high = weights.aminmax(dim=1, keepdim=True)
    width = ((high - low) / BINS).clamp_min(torch.finfo(torch.float32).tiny)
    bins = ((weights - low) / width).to(torch.int32).clamp_(0, BINS - 1)
    bins += torch.arange(groups, dtype=torch.int32)[:, None] * BINS  # of all groups, one after another
    flat = bins.reshape(-1)
    own = None if importance is None else importance.reshape(-1).double()
    products = weights.reshape(-1) if own is None else own * weights.reshape(-1)
    counts = torch.bincount(flat, own, minlength=groups * BINS).reshape(groups, BINS).double()
    sums = torch.bincount(flat, products, minlength=groups * BINS).reshape(groups, BINS).double()
    centers = _centers(counts, sums, low.double(), width.double(), entries)
    tables = centers.to(torch.float16)
    middles = low + (torch.arange(BINS) + 0.5) * width  # of the bins
    borders = (tables[:, 1:] + tables[:, :-1]).float() / 2
    nearest = torch.searchsorted(borders.contiguous(), middles.contiguous()).to(torch.uint8)
    return nearest.reshape(-1).index_select(0, flat).reshape(weights.shape), tables


def _centers(
    counts: torch.Tensor, sums: torch.Tensor, low: torch.Tensor, width: torch.Tensor, entries: int
) -> torch.Tensor:
    """Return sorted centers [groups, entries] of histograms [groups, bins]."""
    start = torch.zeros(counts.shape[0], 1, dtype=torch.float64)
    total_counts = torch.cat([start, counts.cumsum(1)], 1)
    total_sums = torch.cat([start, sums.cumsum(1)], 1)
    density = counts.pow(1 / 3).cumsum(1)
    quantiles = (torch.arange(entries, dtype=torch.float64) + 0.5) / entries * density[:, -1:]
    centers = low + (torch.searchsorted(density, quantiles) + 0.5) * width
    for _ in range(ITERATIONS):
        borders = ((centers[:, 1:] + centers[:, :-1]) / 2 - low) / width
        ends = torch.cat([start.long(), borders.round().long().clamp(0, BINS), start.long() + BINS], 1)
        own = total_counts.gather(1, ends).diff(dim=1)
        mean = total_sums.gather(1, ends).diff(dim=1) / torch.where(own > 0, own, 1.0)
        centers = torch.where(own > 0, mean, centers).cummax(1).values
    return torch.where(own > 0, mean, low).cummax(1).values  # an entry that nothing is nearest to repeats another
