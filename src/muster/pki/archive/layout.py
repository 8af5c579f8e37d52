"""What stands where in the two archives that there are: one of ``foreman-proxy-certs-generate``, one of ``foremanctl``.

Source: docs/facts/deployment.md §2.2 and §5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Format = Literal["installer", "foremanctl"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key.

    Attributes:
        certificate: its file in the archive; ``key`` likewise.
        serves: whether it is shown to who connects; else to whom the member connects.
        used_for: in words.
    """

    certificate: str
    key: str
    serves: bool
    used_for: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one archive.

    Attributes:
        default_ca: whom the member believes that calls it; ``server_ca``: whom it believes that it calls.
        bundle: both in one file.
        secrets: files of a line each that the proxy registers with; by their meaning.
    """

    format: Format
    member: str
    default_ca: str
    server_ca: str
    bundle: str
    pairs: tuple[Pair, ...]
    secrets: Mapping[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        """Every file, CAs first."""
        pairs = (name for pair in self.pairs for name in (pair.certificate, pair.key))
        return (self.default_ca, self.server_ca, self.bundle, *pairs, *self.secrets.values())

    @property
    def keys(self) -> frozenset[str]:
        """The files that nobody else may read."""
        return frozenset({*(p.key for p in self.pairs), *self.secrets.values()})


def layout(form: Format, member: str) -> Layout:
    """Return what an archive of a member holds."""
    if form == "foremanctl":
        return Layout(
            form, member, "certs/ca.crt", "certs/server-ca.crt", "certs/ca-bundle.crt",
            (
                Pair(f"certs/{member}.crt", f"private/{member}.key", True, "the Smart Proxy and Apache"),
                Pair(f"certs/{member}-client.crt", f"private/{member}-client.key", False, "calls to Foreman and Pulp"),
            ),
            {"key": "oauth/foreman-oauth-consumer-key", "secret": "oauth/foreman-oauth-consumer-secret"},
        )  # fmt: skip
    return Layout(
        form,
        member,
        "ssl-build/katello-default-ca.crt",
        "ssl-build/katello-server-ca.crt",
        "ssl-build/ca-bundle.crt",
        tuple(
            Pair(f"ssl-build/{member}/{member}-{name}.crt", f"ssl-build/{member}/{member}-{name}.key", serves, used)
            for name, serves, used in (
                ("apache", True, "Apache on 443"),
                ("foreman-proxy", True, "the Smart Proxy"),
                ("foreman-proxy-client", False, "calls to Foreman and Pulp"),
                ("puppet-client", False, "puppetserver's calls to Foreman"),
            )
        ),
        {},
    )
