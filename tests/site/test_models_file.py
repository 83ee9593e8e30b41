from mlc_controlnet.bundle.manifest import FileEntry, Manifest
from mlc_controlnet.locations import THIRD_PARTY_LICENSES
from mlc_controlnet.site.models_file import describe_model
from tests.bundle.conftest import FILES


def test_licences_are_no_bytes_that_a_browser_fetches(manifest: Manifest) -> None:
    contents = {**FILES, THIRD_PARTY_LICENSES.name: THIRD_PARTY_LICENSES.read_bytes()}
    whole = manifest.with_files(tuple(FileEntry(path, len(data), "") for path, data in contents.items()))
    assert describe_model(whole, "bundle/").bytes == sum(map(len, FILES.values()))
