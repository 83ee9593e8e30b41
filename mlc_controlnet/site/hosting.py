"""What static hosts need beside the page: its policy and headers, in their own formats, and compressed copies.

The page works without any of this. With it, the host repeats the page's policy as a header, tells browsers what may be
cached, and sends a third of the bytes of a library.
"""

import gzip
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

# 'wasm-unsafe-eval' allows WebAssembly and no eval of text. Pictures of the visitor are blob: addresses.
POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'wasm-unsafe-eval'",
    "img-src": "'self' blob: data:",
    "worker-src": "'self'",
    "connect-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
}
HEADERS = {
    # Cross-origin isolation: exact timers and shared memory, and nothing of another origin gets in.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # The camera is one of the sources of a control image; nothing else is asked for.
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
ASK_AGAIN = "no-cache"  # a new build must be seen
FOR_EVER = "public, max-age=31536000, immutable"  # the names of these files change with their content
ASSETS = "assets"
COMPRESSED = (".wasm", ".js", ".mjs", ".css", ".svg")
SHARD = ".bin"
LEAST_GAIN = 0.05  # of a shard's bytes: less is not worth a copy, nor that a browser cannot resume within one
SAMPLE_BYTES = 2**20
MANIFEST = ".webmanifest"
_CONNECT = re.compile(r"connect-src [^;\"]*")


def policy(mirrors: Iterable[str] = ()) -> str:
    """Return the page's Content-Security-Policy. The page may fetch from the hosts of `mirrors` too."""
    directives = {**POLICY, "connect-src": _connect_sources(mirrors)}
    return "; ".join(f"{name} {sources}" for name, sources in directives.items())


def prepare_for_hosts(site: Path, mirrors: Iterable[str] = ()) -> None:
    """Allow the mirrors in the page's policy, and write hosts' files and compressed copies into `site`."""
    mirrors = tuple(mirrors)
    page = site / "index.html"
    page.write_text(_CONNECT.sub(f"connect-src {_connect_sources(mirrors)}", page.read_text(encoding="utf-8"), count=1))
    (site / "_headers").write_text(headers_file(mirrors), encoding="utf-8")
    (site / "nginx.conf").write_text(nginx_file(mirrors), encoding="utf-8")
    (site / ".nojekyll").touch()  # GitHub Pages would leave out files whose names begin with _
    for path in sorted(site.rglob("*")):
        if path.suffix in COMPRESSED and path.is_file():
            # without a time stamp: the same file each time
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
        elif path.suffix == SHARD and path.is_file():
            compress_shard(path)


def compress_shard(shard: Path) -> None:
    """Write the compressed copy of a shard of weights, if there is none yet and it is LEAST_GAIN smaller.

    The middle of the shard decides. Weights in float16 gain 8 %, by their exponents' bits; those in 6 bits gain 1 %.
    """
    copy = shard.with_name(f"{shard.name}.gz")
    if copy.exists():  # of a bundle that the site had before
        return
    data = shard.read_bytes()
    first = max(0, len(data) - SAMPLE_BYTES) // 2
    sample = data[first : first + SAMPLE_BYTES]
    if len(_without_search(sample)) <= (1 - LEAST_GAIN) * len(sample):
        copy.write_bytes(_without_search(data))


def _without_search(data: bytes) -> bytes:
    """Compress for gzip by the bytes' frequencies alone: three times as fast, and weights have no repetitions."""
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS + 16, strategy=zlib.Z_HUFFMAN_ONLY)
    return compressor.compress(data) + compressor.flush()


def headers_file(mirrors: Iterable[str] = ()) -> str:
    """Return `_headers` of Netlify and Cloudflare Pages. Its addresses begin at the host's root."""
    every = {**HEADERS, "Content-Security-Policy": f"{policy(mirrors)}; frame-ancestors 'self'"}
    rules = {
        "/*": every,
        "/": {"Cache-Control": ASK_AGAIN},
        "/index.html": {"Cache-Control": ASK_AGAIN},
        "/offline.js": {"Cache-Control": ASK_AGAIN},
        "/models.json": {"Cache-Control": ASK_AGAIN},
        f"/{ASSETS}/*": {"Cache-Control": FOR_EVER},
    }
    lines = ["# Headers for Netlify and Cloudflare Pages. For a site in a folder, put the folder before each address."]
    for address, headers in rules.items():
        lines += [address, *(f"  {name}: {value}" for name, value in headers.items())]
    return "\n".join(lines) + "\n"


def nginx_file(mirrors: Iterable[str] = ()) -> str:
    """Return a part of nginx's configuration: locations to include in a server block."""
    every = {**HEADERS, "Content-Security-Policy": f"{policy(mirrors)}; frame-ancestors 'self'"}

    def location(address: str, cache: str) -> str:
        lines = [
            f'    add_header {name} "{value}" always;' for name, value in {**every, "Cache-Control": cache}.items()
        ]
        return "\n".join([f"location {address} {{", *lines, "    gzip_static on;", "}"])

    return (
        "# Include this in a server block whose root holds the site. nginx knows .wasm since 1.21; in an older one,\n"
        "# add `application/wasm wasm;` to its mime.types. For a site in a folder, put the folder before each address\n"
        f"{location('/', ASK_AGAIN)}\n{location(f'/{ASSETS}/', FOR_EVER)}\n"
    )


def _connect_sources(mirrors: Iterable[str]) -> str:
    origins = dict.fromkeys(f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, mirrors))
    return " ".join(["'self'", *origins])
