"""Metadata as repositories write it, made for tests."""

from __future__ import annotations

from collections.abc import Iterable

A, B, C = "a" * 64, "b" * 96, "c" * 128


def repomd(*entries: str, revision: str = "<revision>7</revision>", head: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n{head}<repomd xmlns="http://linux.duke.edu/metadata/repo" '
        f'xmlns:rpm="http://linux.duke.edu/metadata/rpm">\n  {revision}\n{"".join(entries)}</repomd>\n'
    ).encode()


def entry(
    kind: str = "primary",
    *,
    href: str = f"repodata/{A}-primary.xml.gz",
    location: str | None = None,
    checksum: str = f'<checksum type="sha256">{A}</checksum>',
    more: str = "<timestamp>1700000000</timestamp><size>766</size><open-size>2866</open-size>",
) -> str:
    place = f'<location href="{href}"/>' if location is None else location
    return f'  <data type="{kind}">\n    {checksum}{place}{more}\n  </data>\n'


def primary(*packages: str, count: int | None = None) -> bytes:
    number = len(packages) if count is None else count
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<metadata xmlns="http://linux.duke.edu/metadata/common" '
        f'xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="{number}">\n{"".join(packages)}</metadata>\n'
    ).encode()


def package(
    *,
    href: str = "Packages/n/name-1.0-1.noarch.rpm",
    location: str | None = None,
    size: str = '<size package="1693" installed="13" archive="284"/>',
    checksum: str = f'<checksum type="sha256" pkgid="YES">{A}</checksum>',
    kind: str = "rpm",
    more: str = "",
) -> str:
    place = f'<location href="{href}"/>' if location is None else location
    return (
        f'<package type="{kind}">\n  <name>name</name>\n  <version epoch="0" ver="1.0" rel="1"/>\n  {checksum}\n'
        f"  <summary>ä</summary>\n  <description>two\nlines</description>\n  {size}\n  {place}\n"
        '  <format><rpm:license>Apache-2.0</rpm:license><rpm:provides><rpm:entry name="name" flags="EQ"/></rpm:provides>'
        f"<file>/usr/bin/name</file></format>{more}\n</package>\n"
    )


def bytewise(body: bytes) -> Iterable[bytes]:
    """One byte at a time: no boundary between pieces matters."""
    return (body[at : at + 1] for at in range(len(body)))
