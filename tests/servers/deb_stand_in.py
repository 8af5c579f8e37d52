"""Versions of one suite of a deb archive for a stand-in for Pulp, as a verbatim publication has them: no by-hash names."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from email.utils import formatdate

from tests.servers.pulp_stand_in import Version

_WHEN = 1_700_000_000
SUITE = "dists/stable"
BINARY = "main/binary-amd64"


def version(
    revision: int,
    packages: Mapping[str, bytes],
    *,
    suite: str = SUITE,
    signed: bool = True,
    sha512: bool = False,
    by_hash: bool = True,
    has_contents: bool = True,
    sources: Mapping[str, bytes] | None = None,
) -> Version:
    """Return a version whose packages lie in ``pool/``; its lists differ from those of any other.

    ``sources``: files of one source package, in ``pool/source/``.
    """
    listed = "".join(
        f"Package: {name}\nVersion: {revision}\nArchitecture: all\nMaintainer: Tests <root@muster.test>\n"
        f"Filename: pool/{name}.deb\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        f"Description: a package for tests\n\n"
        for name, data in packages.items()
    ).encode()
    lists = {
        f"{BINARY}/Packages": listed,
        # The time in its head, as pulp-deb writes it.
        f"{BINARY}/Packages.gz": gzip.compress(listed, mtime=_WHEN + revision),
        f"{BINARY}/Release": f"Archive: stable\nComponent: main\nX: {revision}\n".encode(),
    }
    if sources is not None:
        said = "".join(f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n" for name, data in sources.items())
        stanza = f"Package: s\nVersion: {revision}\nDirectory: pool/source\nChecksums-Sha256:\n{said}\n".encode()
        lists["main/source/Sources.gz"] = gzip.compress(stanza, mtime=0)
    if has_contents:
        lists["main/Contents-amd64.gz"] = gzip.compress(f"usr/bin/x {revision:03}".encode(), mtime=0)
    # Named, and nowhere to be had, as most of what Debian's own name.
    named = {**lists, f"{BINARY}/Packages.xz": b"not here", "main/i18n/Translation-de.bz2": b"not here"}
    algorithms = ("sha256", "sha512") if sha512 else ("sha256",)
    said = "".join(
        f"{algorithm.upper()}:\n"
        + "".join(f" {hashlib.new(algorithm, data).hexdigest()} {len(data)} {name}\n" for name, data in named.items())
        for algorithm in algorithms
    )
    release = (
        f"Origin: tests\nSuite: stable\nCodename: stable\nDate: {formatdate(_WHEN + revision, usegmt=True)}\n"
        f"Acquire-By-Hash: {'yes' if by_hash else 'no'}\nArchitectures: amd64\nComponents: main\n{said}"
    )
    files = {f"{suite}/{name}": data for name, data in lists.items()}
    files[f"{suite}/Release"] = release.encode()
    if signed:
        signature = f"-----BEGIN PGP SIGNATURE-----\n\nof {revision}\n-----END PGP SIGNATURE-----\n"
        files[f"{suite}/Release.gpg"] = signature.encode()
        text = f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{release}{signature}"
        files[f"{suite}/InRelease"] = text.encode()
    files |= {f"pool/{name}.deb": data for name, data in packages.items()}
    files |= {f"pool/source/{name}": data for name, data in (sources or {}).items()}
    return Version(revision, packages, files)


def both(one: Version, other: Version) -> Version:
    """Return an archive with the suites of both."""
    return Version(one.revision, {**one.packages, **other.packages}, {**one.files, **other.files})
