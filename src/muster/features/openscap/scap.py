"""SCAP contents and tailoring files: are they XML, and which profiles have they?

Source: docs/facts/openscap.md §5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from muster.content.metadata.malformed import Malformed
from muster.features.openscap.markup import Capture, Reader, attribute

Kind = Literal["scap_content", "tailoring_file"]

_AROUND: Mapping[Kind, str] = {"scap_content": "Benchmark", "tailoring_file": "Tailoring"}
_MOST_PROFILES = 10_000


def profiles(pieces: Iterable[bytes], kind: Kind) -> dict[str, str | None]:
    """Return the profiles' titles by their ids, in the order of the document; empty when it has none.

    Raises:
        Malformed: it is no XML that is read here.
    """
    reader = _Profiles(_AROUND[kind])
    reader.read(pieces)
    return reader.found


def check(pieces: Iterable[bytes]) -> None:
    """Return when a document is well-formed XML without a document type.

    Raises:
        Malformed: it is not.
    """
    _Whole("the content").read(pieces)


class _Whole(Reader):
    def began(self, name: str, attributes: Mapping[str, str]) -> None:
        """Nothing is looked for."""


class _Profiles(Reader):
    """The profiles of the first element around them."""

    def __init__(self, around: str) -> None:
        super().__init__("the content")
        self.found: dict[str, str | None] = {}
        self._around = around
        self._around_at = self._profile_at = 0
        self._has_begun = self._is_titled = False
        self._id = ""

    def began(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == self._around and not self._has_begun:
            self._has_begun, self._around_at = True, self.depth
        elif self._profile_at:
            if name == "title" and not self._is_titled:
                self._is_titled = True
                self.capture(name)
        elif name == "Profile" and self._around_at:
            if len(self.found) >= _MOST_PROFILES:
                raise Malformed.reading("the content", f"it has more than {_MOST_PROFILES} profiles")
            self._id, self._is_titled = attribute(attributes, "id") or "", False
            self._profile_at = self.depth
            self.keep(self._id)
            self.found[self._id] = None

    def captured(self, capture: Capture) -> None:
        self.found[self._id] = capture.text

    def ended(self, name: str) -> None:
        if self.depth == self._profile_at:
            self._profile_at = 0
        elif self.depth == self._around_at and name == self._around:
            self._around_at = 0
