"""What a single value of the cluster file may be: whole-string rules, said in words an administrator can act on."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from muster.kernel.errors import Rejected
from muster.kernel.names import host_or_address
from muster.kernel.secrets import Secret

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
_BACKEND = re.compile(
    r"(?:https?://(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:]{2,45}\]|\{address\})(?::(?P<port>[0-9]{1,5}))?|"
    r"unix:/[A-Za-z0-9._/-]{1,90})\Z"
)
_WEB = re.compile(
    r"https?://(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:]{2,45}\]|\{member\}|\{address\})(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[A-Za-z0-9._~/-]{0,200})?\Z"
)
_SERVICE = re.compile(
    r"[a-z][a-z0-9+-]{0,15}://(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:]{2,45}\]|\{member\}|\{address\})"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[A-Za-z0-9._~/-]{0,200})?\Z"
)
# Of these no host answers; whoever follows one opens a file of his own, or runs it.
_NO_SERVICE = frozenset({"about", "blob", "data", "file", "javascript", "vbscript"})
_SOCKET = re.compile(r"unix:/[A-Za-z0-9._/-]{1,90}\Z")
_BELOW = re.compile(r"(?<=[^/:])(?:/[A-Za-z0-9_][A-Za-z0-9._~-]{0,63}){1,8}\Z")


def _host(value: str) -> str:
    try:
        return host_or_address(value)
    except Rejected as e:
        raise ValueError(str(e)) from e


def _store_url(value: Secret) -> Secret:
    if not re.match(r"(sqlite:///|postgresql://)\S+\Z", value.reveal()):
        raise ValueError("is neither sqlite:///PATH nor postgresql://USER@HOST/DATABASE")
    return value


def _with_prefix(value: str) -> str:
    if not re.match(r"[0-9A-Fa-f.:]{2,45}/[0-9]{1,3}\Z", value):
        raise ValueError("is no address with its prefix length, as in 192.0.2.10/24")
    address = ipaddress.ip_interface(value)
    if address.is_loopback or address.is_multicast or address.is_unspecified:
        raise ValueError("is no address that can move from host to host")
    whole = {address.network[0], address.network.broadcast_address} if address.version == 4 else {address.network[0]}
    if address.network.num_addresses > 2 and address.ip in whole:
        raise ValueError("is the address of a whole network, not of a host in it")
    return str(address)


def _quoted(value: Any) -> Any:
    if isinstance(value, int | float):
        # YAML has read 3.10 as the number 3.1 already.
        raise ValueError('is a number; write it in quotes: "3.10"')  # noqa: TRY004 - what pydantic takes for a finding
    return value


def _foreman_version(value: str) -> str:
    if not re.match(r"(?:0|[1-9][0-9]{0,3})(?:\.(?:0|[1-9][0-9]{0,3})){1,2}\Z", value):
        raise ValueError("is no version of Foreman: MAJOR.MINOR or MAJOR.MINOR.PATCH, as in 5.0 or 5.0.1")
    return value


def _backend_url(value: str) -> str:
    found = _BACKEND.match(value)
    if not found:
        raise ValueError("is neither http://HOST:PORT, https://HOST:PORT nor unix:/PATH")
    if found["host"] is not None:
        _reachable(found["host"].replace("{address}", "localhost"), found["port"])
    return value


def _registry_url(value: str) -> str:
    if value.startswith("http") and (path := _BELOW.search(value)):
        return _backend_url(value[: path.start()]) + path[0]
    return _backend_url(value)


def web_url(value: str) -> str:
    """Return a URL of the web when something can answer there; ``{member}`` or ``{address}`` may stand for its host.

    Nobody's name or password stands in it, no query, and nothing that two programs might read differently.

    Raises:
        ValueError: it is none; the sentence goes on after its name.
    """
    found = _WEB.match(value)
    if not found:
        raise ValueError("is no http(s)://HOST, with :PORT and /PATH where they are needed")
    return _answerable(value, found)


def service_url(value: str) -> str:
    """As :func:`web_url`, of any scheme (``dns://192.0.2.53``), and ``unix:/PATH``.

    Raises:
        ValueError: it is none; the sentence goes on after its name.
    """
    if _SOCKET.match(value):
        return value
    found = _SERVICE.match(value)
    if not found or value.partition(":")[0] in _NO_SERVICE:
        raise ValueError("is neither SCHEME://HOST, with :PORT and /PATH where they are needed, nor unix:/PATH")
    return _answerable(value, found)


def _answerable(value: str, found: re.Match[str]) -> str:
    _reachable(found["host"].replace("{member}", "localhost").replace("{address}", "localhost"), found["port"])
    if {".", ".."} & set((found["path"] or "").split("/")):
        raise ValueError("holds . or .. in its path")
    return value


def _foreman_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, port = parts.netloc, parts.port
    except ValueError as e:
        raise ValueError(f"is no URL: {e}") from e
    if port is not None:
        host = host.rpartition(":")[0]
    _reachable(host, None if port is None else str(port))
    return value


def _reachable(host: str, port: str | None) -> None:
    if host.startswith("["):
        if not isinstance(address_of(host[1:-1]), ipaddress.IPv6Address):
            raise ValueError(f"holds {host}, which is no IPv6 address")
    else:
        _host(host)
    if port is not None and not 1 <= int(port) <= 65535:
        raise ValueError(f"holds the port {port}, which there is none of")


def _cidr(value: str) -> str:
    if (host := address_of(value)) is not None:
        raise ValueError(f"is one address; as a network it is {ipaddress.ip_network(host)}")
    if not re.match(r"[0-9A-Fa-f.:]{2,45}/[0-9]{1,3}\Z", value):
        raise ValueError("is no network, as in 192.0.2.0/24")
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as e:
        raise ValueError(f"is no network: {e}") from e


# Where a program on a member's host, or elsewhere, is asked; a registry may lie below a path.
BackendURL = Annotated[str, AfterValidator(_backend_url)]
RegistryURL = Annotated[str, AfterValidator(_registry_url)]
WebURL = Annotated[str, AfterValidator(web_url)]
ForemanURL = Annotated[
    str,
    StringConstraints(pattern=r"\Ahttps?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~/-]*)?\z"),
    AfterValidator(_foreman_url),
]
Host = Annotated[str, AfterValidator(_host)]
CIDR = Annotated[str, AfterValidator(_cidr)]
# What Foreman calls something, as people read it; nothing in it means anything to a shell within single or double quotes.
Title = Annotated[
    str, StringConstraints(pattern=r"\A[A-Za-z0-9À-ɏ](?:[A-Za-z0-9À-ɏ ._,:()/&+-]{0,253}[A-Za-z0-9À-ɏ.)])?\z")
]
Label = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9_-]{1,128}\z")]
StoreURL = Annotated[Secret, AfterValidator(_store_url)]
ForemanVersion = Annotated[str, BeforeValidator(_quoted), AfterValidator(_foreman_version)]
# As Foreman has logins, less what is no ASCII; a colon would end it in HTTP Basic.
ForemanUser = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9_@.$#+\\-]{1,100}\z")]
AddressWithPrefix = Annotated[str, AfterValidator(_with_prefix)]
Interface = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,14}\z")]
RequestPath = Annotated[
    str, StringConstraints(pattern=r"\A/[A-Za-z0-9/._~%-]{0,200}(?:\?[A-Za-z0-9=&._~%-]{1,100})?\z")
]
AnswerText = Annotated[str, StringConstraints(pattern=r"\A[ -&(-\[\]-~]{0,200}\z")]
Slug = Annotated[str, StringConstraints(pattern=r"\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\z")]
# As Foreman names them on the wire, of which one has an underscore.
FeatureName = Annotated[str, StringConstraints(pattern=r"\A[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?\z")]


def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address a text is, None when it is another kind of host."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
