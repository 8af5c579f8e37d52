"""Where an archive of the installer goes on a Ruby member, file by file.

Source: docs/facts/deployment.md §2.3, which is what ``foreman-installer --certs-tar-file`` does.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from muster.kernel.errors import Misconfigured, Unsupported
from muster.kernel.secrets import Secret
from muster.pki import pem as pems
from muster.pki.archive.read import Archive

_KATELLO = "/etc/pki/katello"
_PROXY = "/etc/foreman-proxy"


@dataclass(frozen=True)
class Placement:
    """One file.

    Attributes:
        path: absolute.
        content: of keys nobody sees it in a ``repr``.
        group: whose it is beside root's.
    """

    path: str
    content: Secret
    group: str
    mode: int


def placements(archive: Archive, *, mqtt: bool = False, puppet: bool = False) -> tuple[Placement, ...]:
    """Return every file that the installer would write; those of mosquitto and puppetserver where these are there.

    Raises:
        Unsupported: an archive of foremanctl, which is given to containers as it is.
        Misconfigured: it lacks a file.
    """
    if archive.format == "foremanctl":
        raise Unsupported(
            "An archive of foremanctl is not put into place by hand: foremanctl deploy-proxy --auth-bundle FILE takes it"
        )
    if missing := [n for n in archive.missing if puppet or "puppet-client" not in n]:
        raise Misconfigured(f"The archive lacks {', '.join(missing)}")
    below = f"ssl-build/{archive.member}/{archive.member}-"
    default, server = archive.layout.default_ca, archive.layout.server_ca
    client = f"{below}foreman-proxy-client"
    found = [
        _file(archive, f"{_KATELLO}/certs/katello-default-ca.crt", default, "root", 0o644),
        _file(archive, f"{_KATELLO}/certs/katello-server-ca.crt", server, "root", 0o644),
        _file(archive, f"{_KATELLO}/certs/katello-apache.crt", f"{below}apache.crt", "root", 0o440),
        _file(archive, f"{_KATELLO}/private/katello-apache.key", f"{below}apache.key", "root", 0o440),
        _file(archive, f"{_PROXY}/ssl_cert.pem", f"{below}foreman-proxy.crt", "foreman-proxy", 0o444),
        _file(archive, f"{_PROXY}/ssl_key.pem", f"{below}foreman-proxy.key", "foreman-proxy", 0o440),
        _file(archive, f"{_PROXY}/ssl_ca.pem", default, "foreman-proxy", 0o440),
        _file(archive, f"{_PROXY}/foreman_ssl_cert.pem", f"{client}.crt", "foreman-proxy", 0o444),
        _file(archive, f"{_PROXY}/foreman_ssl_key.pem", f"{client}.key", "foreman-proxy", 0o440),
        _file(archive, f"{_PROXY}/foreman_ssl_ca.pem", server, "foreman-proxy", 0o440),
        # The installer leaves this one readable to everybody; it holds a key.
        Placement(
            f"{_KATELLO}/private/{archive.member}-foreman-proxy-client-bundle.pem",
            _joined(archive, client),
            "foreman-proxy",
            0o440,
        ),
    ]
    if puppet:
        at = f"{_KATELLO}/puppet"
        found += [
            _file(archive, f"{at}/puppet_client.crt", f"{below}puppet-client.crt", "puppet", 0o440),
            _file(archive, f"{at}/puppet_client.key", f"{below}puppet-client.key", "puppet", 0o440),
            _file(archive, f"{at}/puppet_client_ca.crt", default, "puppet", 0o440),
        ]
    if mqtt:
        at = "/etc/mosquitto/ssl"
        found += [
            _file(archive, f"{at}/ssl_cert.pem", f"{below}foreman-proxy.crt", "mosquitto", 0o440),
            _file(archive, f"{at}/ssl_key.pem", f"{below}foreman-proxy.key", "mosquitto", 0o440),
            _file(archive, f"{at}/ssl_ca.pem", default, "mosquitto", 0o440),
        ]
    return tuple(found)


def _file(archive: Archive, path: str, name: str, group: str, mode: int) -> Placement:
    return Placement(path, Secret(archive.files[name].decode("utf-8", "replace")), group, mode)


def _joined(archive: Archive, client: str) -> Secret:
    """Return key and certificate in one file; Apache reads an RSA key in its older form only."""
    key = pems.private_key(archive.files[f"{client}.key"], f"{client}.key")
    form = PrivateFormat.TraditionalOpenSSL if isinstance(key, rsa.RSAPrivateKey) else PrivateFormat.PKCS8
    text = key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()
    return Secret(text + pems.text(pems.certificates(archive.files[f"{client}.crt"], f"{client}.crt")))
