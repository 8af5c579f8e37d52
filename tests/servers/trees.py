"""Installation trees as origins have them, made for tests."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from muster.kernel.process import clean_environment
from tests.servers import pulp
from tests.servers.pulp_stand_in import Version

IMAGES = {
    "images/pxeboot/vmlinuz": b"kernel" * 500, "images/pxeboot/initrd.img": b"initrd" * 400,
    "images/install.img": b"stage2" * 300, "images/boot.iso": b"iso" * 900,
}  # fmt: skip
"""Path to bytes."""


def treeinfo(
    checksums: Mapping[str, bytes],
    *,
    images: Sequence[str] = (),
    repositories: Sequence[str] = (),
    algorithm: str = "sha256",
) -> bytes:
    """Return a ``.treeinfo`` as productmd writes it: what has checksums, images without, variants' repositories."""
    lines = ["[header]", "type = productmd.treeinfo", "version = 1.2", "", "[checksums]"]
    lines += [f"{href} = {algorithm}:{hashlib.new(algorithm, body).hexdigest()}" for href, body in checksums.items()]
    lines += ["", "[images-x86_64]", *(f"image{n} = {href}" for n, href in enumerate((*checksums, *images)))]
    for number, one in enumerate(repositories):
        lines += ["", f"[variant-V{number}]", f"id = V{number}", "packages = Packages", f"repository = {one}"]
    lines += ["", "[tree]", "arch = x86_64", "build_timestamp = 1700000000", ""]
    return "\n".join(lines).encode()


def tree(
    one: Version, images: Mapping[str, bytes] = IMAGES, within: Mapping[str, Version] | None = None
) -> dict[str, bytes]:
    """Return the files of a tree around a version; ``within``: repositories below it, which are its variants."""
    nested = within if within is not None else {}
    said = treeinfo({**images, "repodata/repomd.xml": b"of the day of the tree"}, repositories=(".", *nested))
    return {
        **one.files, **images, ".treeinfo": said,
        **{f"{place}/{name}": body for place, other in nested.items() for name, body in other.files.items()},
    }  # fmt: skip


_WRITE = """\
import json, sys
from productmd.treeinfo import TreeInfo, Variant
root, images, repositories = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
it = TreeInfo()
it.release.name, it.release.short, it.release.version = "Example", "EX", "9"
it.tree.arch, it.tree.build_timestamp = "x86_64", 1700000000
it.tree.platforms.add("x86_64")
it.images.images["x86_64"] = {href.rpartition("/")[2]: href for href in images if "install" not in href}
it.stage2.mainimage = next(href for href in images if "install" in href)
for number, place in enumerate(repositories):
    one = Variant(it)
    one.id = one.uid = one.name = f"V{number}"
    one.type = "variant"
    one.paths.packages = one.paths.repository = place
    it.variants.add(one)
for href in images:
    it.checksums.add(href, "sha256", root_dir=root)
it.checksums.add("repodata/repomd.xml", "sha256", root_dir=root)
it.dump(root + "/.treeinfo")
"""

_CHECK = """\
import json, os, sys
from productmd.treeinfo import compute_checksum
from productmd.treeinfo import TreeInfo
it, root = TreeInfo(), sys.argv[1]
it.load(root + "/.treeinfo")
named = {it.stage2.mainimage, *it.images.images["x86_64"].values()}
for href, (algorithm, digest) in it.checksums.checksums.items():
    if not href.startswith("repodata/") and compute_checksum(os.path.join(root, href), algorithm) != digest:
        sys.exit("another " + href)
print(json.dumps(sorted(named)))
"""


def write(root: Path, images: Mapping[str, bytes], repositories: Sequence[str]) -> None:
    """Write the ``.treeinfo`` of a tree whose files lie there, by productmd; ask ``needs("pulp")`` first."""
    _productmd(_WRITE, str(root), json.dumps(list(images)), json.dumps(list(repositories)))


def checked(root: Path) -> list[str]:
    """Return the images that productmd finds named in a copy of a tree, having compared their checksums."""
    found: list[str] = json.loads(_productmd(_CHECK, str(root)))
    return found


def _productmd(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [pulp.HOME / "venv" / "bin" / "python", "-c", program, *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, env=clean_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
