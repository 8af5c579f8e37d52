"""Tiny packages made from nothing: an RPM, a Debian package, a container image. Equal arguments give equal bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from muster.content.consumer.rpm_file import INT16, INT32, STRING, STRINGS, TRANSLATED, file_of

_WHEN = 1_700_000_000
_EQUAL, _RPMLIB = 0x08, 0x0100000A
_SHA256 = 8


@dataclass(frozen=True)
class Package:
    """A package with one file; ``build`` changes the bytes and nothing else, as signing anew does."""

    name: str
    version: str = "1.0"
    release: str = "1"
    build: str = ""
    padding: int = 0

    @property
    def file(self) -> tuple[str, bytes]:
        """The path it installs to, and what is there then."""
        content = f"{self.name} {self.version}-{self.release} {self.build}\n".encode()
        return f"/usr/share/muster-tests/{self.name}", content + _noise(self.name, self.padding)

    @property
    def rpm_name(self) -> str:
        return f"{self.name}-{self.version}-{self.release}.noarch.rpm"

    @property
    def deb_name(self) -> str:
        return f"{self.name}_{self.version}-{self.release}_all.deb"

    def rpm(self) -> bytes:
        """The whole package, as rpm 4 reads it (format version 3)."""
        path, content = self.file
        cpio = _cpio(f".{path}", content)
        payload = gzip.compress(cpio, mtime=0)
        return file_of(self.rpm_name, self._tags(content, payload), payload, unpacked_bytes=len(cpio))

    def deb(self) -> bytes:
        """The whole package, as dpkg reads it."""
        path, content = self.file
        control = "".join(f"{k}: {v}\n" for k, v in self.control().items()).encode()
        members = {
            "debian-binary": b"2.0\n",
            "control.tar.gz": _tar({"./control": control}),
            "data.tar.gz": _tar({f".{path}": content}),
        }
        made = [b"!<arch>\n"]
        for name, data in members.items():
            made.append(f"{name:<16}{_WHEN:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
            made.append(data + b"\n" * (len(data) % 2))
        return b"".join(made)

    def control(self) -> dict[str, str]:
        """The fields of its Debian form."""
        return {
            "Package": self.name,
            "Version": f"{self.version}-{self.release}",
            "Architecture": "all",
            "Maintainer": "Tests <root@muster.test>",
            "Section": "misc",
            "Priority": "optional",
            "Description": "a package for tests",
        }

    def _tags(self, content: bytes, payload: bytes) -> dict[int, tuple[int, Sequence[str | int | bytes]]]:
        directory, _, base = self.file[0].rpartition("/")
        return {
            100: (STRINGS, ["C"]),
            1000: (STRING, [self.name]),
            1001: (STRING, [self.version]),
            1002: (STRING, [self.release]),
            1004: (TRANSLATED, ["a package for tests"]),
            1005: (TRANSLATED, ["a package for tests"]),
            1006: (INT32, [_WHEN]),
            1007: (STRING, ["muster.test"]),
            1009: (INT32, [len(content)]),
            1014: (STRING, ["Apache-2.0"]),
            1016: (TRANSLATED, ["Unspecified"]),
            1021: (STRING, ["linux"]),
            1022: (STRING, ["noarch"]),
            1028: (INT32, [len(content)]),
            1030: (INT16, [0o100644]),
            1033: (INT16, [0]),
            1034: (INT32, [_WHEN]),
            1035: (STRINGS, [hashlib.sha256(content).hexdigest()]),
            1036: (STRINGS, [""]),
            1037: (INT32, [0]),
            1039: (STRINGS, ["root"]),
            1040: (STRINGS, ["root"]),
            1044: (STRING, [f"{self.name}-{self.version}-{self.release}.src.rpm"]),
            1045: (INT32, [-1]),
            1047: (STRINGS, [self.name]),
            1048: (INT32, [_RPMLIB, _RPMLIB]),
            1049: (STRINGS, ["rpmlib(CompressedFileNames)", "rpmlib(PayloadFilesHavePrefix)"]),
            1050: (STRINGS, ["3.0.4-1", "4.0-1"]),
            1064: (STRING, ["4.18.0"]),
            1095: (INT32, [1]),
            1096: (INT32, [1]),
            1097: (STRINGS, [""]),
            1112: (INT32, [_EQUAL]),
            1113: (STRINGS, [f"{self.version}-{self.release}"]),
            1116: (INT32, [0]),
            1117: (STRINGS, [base]),
            1118: (STRINGS, [f"{directory}/"]),
            1124: (STRING, ["cpio"]),
            1125: (STRING, ["gzip"]),
            1126: (STRING, ["9"]),
            5011: (INT32, [_SHA256]),
            5092: (STRINGS, [hashlib.sha256(payload).hexdigest()]),
            5093: (INT32, [_SHA256]),
        }


@dataclass(frozen=True)
class Source:
    """A Debian source package of two files, in the format ``3.0 (native)``."""

    name: str
    version: str = "1.0"

    @property
    def files(self) -> dict[str, bytes]:
        """Name to bytes, what describes the others first."""
        archive, data = (
            f"{self.name}_{self.version}.tar.gz",
            _tar({f"{self.name}-{self.version}/README": b"a source\n"}),
        )
        said = {**self.control(), "Format": "3.0 (native)", "Source": self.name}
        del said["Package"]
        described = "".join(f"{k}: {v}\n" for k, v in said.items()) + listed_files({archive: data})
        return {f"{self.name}_{self.version}.dsc": described.encode(), archive: data}

    def control(self) -> dict[str, str]:
        """The fields of its entry in a list, without those of its files."""
        return {
            "Package": self.name, "Binary": self.name, "Version": self.version, "Architecture": "all",
            "Maintainer": "Tests <root@muster.test>", "Standards-Version": "4.6.2", "Format": "3.0 (native)",
        }  # fmt: skip


def listed_files(files: Mapping[str, bytes]) -> str:
    """Return the fields of a source package that say what its files are."""

    def lines(algorithm: str) -> str:
        return "".join(
            f" {hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()} {len(data)} {name}\n"
            for name, data in files.items()
        )

    return f"Checksums-Sha256:\n{lines('sha256')}Files:\n{lines('md5')}"


@dataclass(frozen=True)
class Image:
    """A container image of one layer with one file; ``padding`` is how many bytes the layer has beside it.

    Attributes:
        above: the contents of further layers, each with as much beside it.
    """

    content: str = "hello"
    padding: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    above: Sequence[str] = ()

    @property
    def layers(self) -> list[bytes]:
        return [_tar({"hello": c.encode(), "padding": _noise(c, self.padding)}) for c in (self.content, *self.above)]

    def write(self, directory: Path) -> str:
        """Write it as an OCI layout with the tag ``latest``; return the manifest's digest."""
        layers = self.layers
        plain = [hashlib.sha256(gzip.decompress(layer)).hexdigest() for layer in layers]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": dict(self.labels)},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{p}" for p in plain]},
        }
        of_config = json.dumps(config).encode()
        blobs = directory / "blobs" / "sha256"
        blobs.mkdir(parents=True)

        def kept(kind: str, data: bytes) -> dict[str, str | int]:
            digest = hashlib.sha256(data).hexdigest()
            (blobs / digest).write_bytes(data)
            return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": kept("config.v1+json", of_config),
            "layers": [kept("layer.v1.tar+gzip", layer) for layer in layers],
        }
        found = kept("manifest.v1+json", json.dumps(manifest).encode())
        index = {
            "schemaVersion": 2,
            "manifests": [{**found, "annotations": {"org.opencontainers.image.ref.name": "latest"}}],
        }
        (directory / "index.json").write_text(json.dumps(index))
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        return str(found["digest"])


def _noise(seed: str, length: int) -> bytes:
    """Bytes that do not compress and are always the same."""
    return hashlib.shake_128(seed.encode()).digest(length)


def _cpio(path: str, content: bytes) -> bytes:
    made = b""
    for name, mode, data in ((path, 0o100644, content), ("TRAILER!!!", 0, b"")):
        named = name.encode() + b"\0"
        fields = (1, mode, 0, 0, 1, _WHEN if data else 0, len(data), 0, 0, 0, 0, len(named), 0)
        made += b"070701" + b"".join(b"%08x" % f for f in fields) + named
        made += bytes(-len(made) % 4) + data
        made += bytes(-len(made) % 4)
    return made


def _tar(files: Mapping[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.uname, entry.gname = len(data), _WHEN, "root", "root"
            archive.addfile(entry, io.BytesIO(data))
    return gzip.compress(written.getvalue(), mtime=0)
