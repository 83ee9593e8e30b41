"""Arithmetic on the sizes of tensors and tiles; all numbers are positive."""


def ceil_div(number: int, divisor: int) -> int:
    """Return how many pieces of size `divisor` cover `number`."""
    return -(-number // divisor)


def round_up(number: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is not below `number`."""
    return ceil_div(number, multiple) * multiple


def divisors(number: int, limit: int) -> list[int]:
    """Return the divisors of `number` up to `limit`, ascending."""
    return [candidate for candidate in range(1, min(number, limit) + 1) if number % candidate == 0]


def next_power_of_two(size: int) -> int:
    """Return the smallest power of two that is not below `size`."""
    return 1 << (size - 1).bit_length()
