"""A grid of Infoblox that keeps a feature's records: which one, and whose account.

The same for every feature whose records a grid can keep. Reading settings loads no HTTP client: that is in ``wapi.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import StringConstraints, model_validator

from muster.cluster.values import ForemanURL, Seconds
from muster.kernel.errors import Misconfigured
from muster.kernel.files import first_line
from muster.kernel.secrets import Secret
from muster.kernel.settings import Settings

View = Annotated[str, StringConstraints(pattern=r"\A[^\x00-\x1f\x7f]{1,255}\z")]
_PASSWORD_BYTES = 4096


class GridSettings(Settings):
    """A grid of Infoblox, over its web API."""

    url: ForemanURL
    """The grid's URL, as ``https://infoblox.example.net`` (Ruby: ``server`` of the feature)."""
    username: Annotated[str, StringConstraints(pattern=r"\A[^\x00-\x1f\x7f:]{1,255}\z")]
    """An account of the grid that may use its API."""
    password: Secret | None = None
    """Its password."""
    password_file: Path | None = None
    """A file whose first line is its password, in place of ``password``."""
    ca: Path | None = None
    """PEM file of the CA of its certificate; None: the system's CAs."""
    wapi_version: Annotated[str, StringConstraints(pattern=r"\A[2-9]\.[0-9]{1,2}(?:\.[0-9]{1,2}){0,2}\z")] = "2.0"
    """Version of its API to speak; a grid speaks all up to its own."""
    timeout_s: Seconds = 10.0
    """How long one call may take."""

    @model_validator(mode="after")
    def _has_a_password_and_hides_it(self) -> Self:
        if (self.password is None) == (self.password_file is None):
            raise ValueError("one of password and password_file is needed")
        if not self.url.startswith("https://") and urlsplit(self.url).hostname not in ("127.0.0.1", "localhost"):
            raise ValueError("url must begin with https: the password goes there")
        return self


def password_of(settings: GridSettings) -> Secret:
    """Return the password.

    Raises:
        Misconfigured: its file cannot be read, or is empty.
    """
    if settings.password is not None:
        return settings.password
    if settings.password_file is None:
        raise Misconfigured("Infoblox has neither password nor password_file")
    first = first_line(settings.password_file, what="Infoblox' password file", limit_bytes=_PASSWORD_BYTES)
    if not first:
        raise Misconfigured(f"{settings.password_file} has no password in its first line")
    return Secret(first)
