"""A small bundle's manifest, from the tests of bundles."""

from tests.bundle.conftest import manifest  # noqa: F401
