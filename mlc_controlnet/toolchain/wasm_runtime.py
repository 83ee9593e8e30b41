"""Build TVM's wasm runtime, once per user and set of inputs.

The apache-tvm wheel carries the runtime's C++ sources, and the ziglang wheel carries a compiler for wasm, so the user
has to install nothing else. The build stays in the user's cache folder under the hash of its inputs.

TVM's own build uses emscripten without C++ exceptions, so every error of the library ends the page's instance. This
build uses wasm's own exceptions, which every browser with WebGPU has. An error becomes a JavaScript Error with TVM's
message, and the instance stays usable.
"""

import hashlib
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from mlc_controlnet.files import flush_tree
from mlc_controlnet.machine import count_cores
from mlc_controlnet.toolchain import recipe
from mlc_controlnet.toolchain.wheels import wheel_folder
from mlc_controlnet.toolchain.zig import Zig, find_zig

HERE = Path(__file__).parent


@dataclass(frozen=True)
class RuntimeInputs:
    """Everything that decides the bytes of the runtime.

    Attributes:
        tvm, tvm_ffi: the installed packages' folders, with C++ sources.
        zig: the compiler, with the sources of its C++ library.
        overlay: the folder of our files that replace or complete TVM's.
        versions: (distribution, version) of each wheel; the key uses them instead of the wheels' contents.
    """

    tvm: Path
    tvm_ffi: Path
    zig: Zig
    overlay: Path
    versions: tuple[tuple[str, str], ...]

    def key(self) -> str:
        """Return the first 16 hex digits of the sha256 of the versions, the recipe and every overlay file."""
        digest = hashlib.sha256(repr(self.versions).encode())
        for path in [Path(recipe.__file__), *sorted(self.overlay.rglob("*"))]:
            if path.is_file():
                name = path.relative_to(self.overlay).as_posix() if path.is_relative_to(self.overlay) else path.name
                content = path.read_bytes()
                digest.update(f"{name} {len(content)}\n".encode() + content)
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class WasmRuntime:
    """A built runtime.

    Attributes:
        folder: holds `objects/` and `archives/`. The objects are linked whole because they register functions at start.
    """

    folder: Path

    def objects(self) -> list[Path]:
        """List the object files, which a linker has to link whole."""
        return sorted((self.folder / "objects").iterdir())

    def archives(self) -> list[Path]:
        """List the archives in the order of linking: libc++ comes before libc, which it calls."""
        return [self.folder / "archives" / name for name in recipe.ZIG_ARCHIVES]


def installed_inputs() -> RuntimeInputs:
    """Return the inputs that this Python environment has.

    Raises:
        UserError: a wheel is missing, or was built without the C++ sources.
    """
    return RuntimeInputs(
        tvm=wheel_folder("apache-tvm", module="tvm", needs=("src/runtime", "include/tvm", "web/emcc/wasm_runtime.cc")),
        tvm_ffi=wheel_folder("apache-tvm-ffi", module="tvm_ffi", needs=("src/ffi", "include", "3rdparty/dlpack")),
        zig=find_zig(),
        overlay=HERE / "overlay",
        versions=tuple((name, version(name)) for name in ("apache-tvm", "apache-tvm-ffi", "ziglang")),
    )


def user_cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/mlc-controlnet`, or `~/.cache/mlc-controlnet` if it is unset, empty or relative."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "mlc-controlnet"


def build_runtime(cache_folder: Path | None = None, inputs: RuntimeInputs | None = None) -> WasmRuntime:
    """Return the wasm runtime of these inputs; build it with a progress bar if the cache does not have it.

    Several processes can call this at once: one builds, and the others wait for it. After an interrupted build, a later
    call starts from the beginning.

    Args:
        cache_folder: the folder that keeps built runtimes; None for `user_cache_folder()`.
        inputs: the sources and the compiler; None for `installed_inputs()`.

    Raises:
        UserError: a wheel is missing.
        RuntimeError: a source does not compile.
    """
    cache_folder = user_cache_folder() if cache_folder is None else cache_folder
    inputs = installed_inputs() if inputs is None else inputs
    folder = cache_folder / f"wasm-runtime-{inputs.key()}"
    if folder.is_dir():
        return WasmRuntime(folder)
    cache_folder.mkdir(parents=True, exist_ok=True)
    with FileLock(cache_folder / f"{folder.name}.lock"):
        if not folder.is_dir():  # another process may have built it while this one waited
            for killed_build in cache_folder.glob(f"{folder.name}.*/"):
                shutil.rmtree(killed_build)
            _build(inputs, folder)
    return WasmRuntime(folder)


def _build(inputs: RuntimeInputs, folder: Path) -> None:
    """Build next to `folder`, then rename the result to it, so that a folder that exists is complete."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as work_name:
        work = Path(work_name)
        tree, built = work / "tree", work / "built"
        (built / "objects").mkdir(parents=True)
        recipe.lay_out_tree(tree, inputs.tvm, inputs.tvm_ffi, inputs.overlay)
        units = recipe.units(tree, inputs.zig.lib)

        def compile_unit(unit: recipe.Unit) -> None:
            compiler = "cc" if unit.source.suffix == ".c" else "c++"
            output = built / "objects" / unit.object_name
            inputs.zig.run([compiler, *unit.flags, "-c", unit.source, "-o", output], build_cache=work / "zig-cache")

        with ThreadPoolExecutor(count_cores()) as pool:
            jobs = [pool.submit(_build_archives, inputs.zig, work, built / "archives")]
            jobs += [pool.submit(compile_unit, unit) for unit in units]
            try:
                for job in tqdm(as_completed(jobs), "building the wasm runtime (once)", total=len(jobs), unit="part"):
                    job.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        flush_tree(built)
        built.rename(folder)


def _build_archives(zig: Zig, work: Path, archives: Path) -> None:
    """Make zig build its C and C++ libraries, and copy them from its cache to `archives`."""
    program, build_cache = work / "archives.cc", work / "archives-cache"
    program.write_text(recipe.ZIG_ARCHIVES_PROGRAM, encoding="utf-8")
    zig.run([*recipe.ZIG_ARCHIVES_COMMAND, program, "-o", work / "archives.wasm"], build_cache=build_cache)
    archives.mkdir()
    for name in recipe.ZIG_ARCHIVES:
        found = list(build_cache.glob(f"o/*/{name}"))
        # zig sometimes builds a file twice. Either copy will do as long as both are the same.
        if len({path.read_bytes() for path in found}) != 1:
            raise RuntimeError(f"{name}: zig built {len(found)}, wanted one; see ZIG_ARCHIVES in {recipe.__file__}")
        shutil.copy(found[0], archives / name)
