import shutil

import pytest

from tests.fixtures.linear_bundle import compile_linear_library, linear_model, write_linear_bundle


@pytest.fixture(scope="session")
def linear_library(tmp_path_factory):
    """The compiled library of the linear model, float32."""
    path = tmp_path_factory.mktemp("library") / "linear.so"
    compile_linear_library(path)
    return path


@pytest.fixture(scope="session")
def linear_bundle(tmp_path_factory, linear_library):
    """A small but complete llvm bundle, to be read only."""
    return write_linear_bundle(tmp_path_factory.mktemp("bundles") / "linear-llvm", linear_model(), linear_library)


@pytest.fixture
def linear_bundle_copy(tmp_path, linear_bundle):
    """The folder of a copy, to be broken."""
    return shutil.copytree(linear_bundle.path, tmp_path / "linear-llvm")
