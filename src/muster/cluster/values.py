"""What a single value of the cluster file may be: whole-string rules, said in words an administrator can act on."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from muster.kernel.errors import Rejected
from muster.kernel.names import host_or_address
from muster.kernel.secrets import Secret

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


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
    if not re.match(
        r"(?:https?://(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:]{2,45}\]|\{address\})(?::[0-9]{1,5})?|unix:/[A-Za-z0-9._/-]{1,90})\Z",
        value,
    ):
        raise ValueError("is neither http://HOST:PORT, https://HOST:PORT nor unix:/PATH")
    return value


BackendURL = Annotated[str, AfterValidator(_backend_url)]
Host = Annotated[str, AfterValidator(_host)]
StoreURL = Annotated[Secret, AfterValidator(_store_url)]
ForemanVersion = Annotated[str, BeforeValidator(_quoted), AfterValidator(_foreman_version)]
AddressWithPrefix = Annotated[str, AfterValidator(_with_prefix)]
Interface = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,14}\z")]
RequestPath = Annotated[
    str, StringConstraints(pattern=r"\A/[A-Za-z0-9/._~%-]{0,200}(?:\?[A-Za-z0-9=&._~%-]{1,100})?\z")
]
AnswerText = Annotated[str, StringConstraints(pattern=r"\A[ -&(-\[\]-~]{0,200}\z")]
Slug = Annotated[str, StringConstraints(pattern=r"\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\z")]


def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address a text is, None when it is another kind of host."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
