"""Tiny packages made from nothing: an RPM, a Debian package, a container image. Equal arguments give equal bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_WHEN = 1_700_000_000
_INT16, _INT32, _STRING, _BINARY, _STRINGS, _TRANSLATED = 3, 4, 6, 7, 8, 9
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
        header = _header(63, self._tags(content, payload))
        body = header + payload
        signature = _header(
            62,
            {
                269: (_STRING, [hashlib.sha1(header, usedforsecurity=False).hexdigest()]),
                273: (_STRING, [hashlib.sha256(header).hexdigest()]),
                1000: (_INT32, [len(body)]),
                1004: (_BINARY, [hashlib.md5(body, usedforsecurity=False).digest()]),
                1007: (_INT32, [len(cpio)]),
            },
        )
        lead = struct.pack(">4sBBHH66sHH16x", b"\xed\xab\xee\xdb", 3, 0, 0, 255, self.rpm_name[:65].encode(), 1, 5)
        return lead + signature + bytes(-len(signature) % 8) + body

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
            100: (_STRINGS, ["C"]),
            1000: (_STRING, [self.name]),
            1001: (_STRING, [self.version]),
            1002: (_STRING, [self.release]),
            1004: (_TRANSLATED, ["a package for tests"]),
            1005: (_TRANSLATED, ["a package for tests"]),
            1006: (_INT32, [_WHEN]),
            1007: (_STRING, ["muster.test"]),
            1009: (_INT32, [len(content)]),
            1014: (_STRING, ["Apache-2.0"]),
            1016: (_TRANSLATED, ["Unspecified"]),
            1021: (_STRING, ["linux"]),
            1022: (_STRING, ["noarch"]),
            1028: (_INT32, [len(content)]),
            1030: (_INT16, [0o100644]),
            1033: (_INT16, [0]),
            1034: (_INT32, [_WHEN]),
            1035: (_STRINGS, [hashlib.sha256(content).hexdigest()]),
            1036: (_STRINGS, [""]),
            1037: (_INT32, [0]),
            1039: (_STRINGS, ["root"]),
            1040: (_STRINGS, ["root"]),
            1044: (_STRING, [f"{self.name}-{self.version}-{self.release}.src.rpm"]),
            1045: (_INT32, [-1]),
            1047: (_STRINGS, [self.name]),
            1048: (_INT32, [_RPMLIB, _RPMLIB]),
            1049: (_STRINGS, ["rpmlib(CompressedFileNames)", "rpmlib(PayloadFilesHavePrefix)"]),
            1050: (_STRINGS, ["3.0.4-1", "4.0-1"]),
            1064: (_STRING, ["4.18.0"]),
            1095: (_INT32, [1]),
            1096: (_INT32, [1]),
            1097: (_STRINGS, [""]),
            1112: (_INT32, [_EQUAL]),
            1113: (_STRINGS, [f"{self.version}-{self.release}"]),
            1116: (_INT32, [0]),
            1117: (_STRINGS, [base]),
            1118: (_STRINGS, [f"{directory}/"]),
            1124: (_STRING, ["cpio"]),
            1125: (_STRING, ["gzip"]),
            1126: (_STRING, ["9"]),
            5011: (_INT32, [_SHA256]),
            5092: (_STRINGS, [hashlib.sha256(payload).hexdigest()]),
            5093: (_INT32, [_SHA256]),
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


def _header(region: int, tags: Mapping[int, tuple[int, Sequence[str | int | bytes]]]) -> bytes:
    """Write tags as RPM's header structure, enclosed in a region."""
    index, store = [], b""
    for tag, (kind, values) in sorted(tags.items()):
        width = {_INT16: 2, _INT32: 4}.get(kind, 1)
        store += bytes(-len(store) % width)
        count = len(values[0]) if isinstance(values[0], bytes) else len(values)
        index.append(struct.pack(">iiii", tag, kind, len(store), count))
        for value in values:
            if isinstance(value, bytes):
                store += value
            elif isinstance(value, str):
                store += value.encode() + b"\0"
            else:
                store += (value & (1 << 8 * width) - 1).to_bytes(width, "big")
    whole = struct.pack(">iiii", region, _BINARY, len(store), 16)
    store += struct.pack(">iiii", region, _BINARY, -16 * (len(index) + 1), 16)
    head = struct.pack(">4s4xii", b"\x8e\xad\xe8\x01", len(index) + 1, len(store))
    return head + whole + b"".join(index) + store


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
