"""Names of hosts, domains, addresses and MAC addresses, each replaced by the same stand-in wherever it occurs.

Known are the names of the cluster file, this host's, those in URLs, and whatever lies in a domain of one of these. A name of
another domain that stands in a sentence cannot be told from other words with dots, and stays.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_HOST_IN_URL = re.compile(
    r"://(?:[^\s/@\"'<>]{0,256}@)?([A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)(?=[:/?#\s\"'<>,;)\]]|\Z)"
)
_IPV4 = re.compile(r"(?<![0-9.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9]|\.[0-9])")
_IPV6 = re.compile(r"(?<![0-9A-Za-z:.])[0-9A-Fa-f:]{2,39}(?![0-9A-Za-z:]|\.[0-9])")
_MAC = re.compile(r"(?<![0-9A-Fa-f:-])[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})(?![0-9A-Fa-f:-])")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL}){{0,30}}\Z")
# For documentation (RFC 5737, RFC 2544), in which nobody's host is.
_NETWORKS = tuple(
    ipaddress.IPv4Network(n)
    for n in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15", "240.0.0.0/4")
)
_BROADCAST = 0xFFFFFFFF
_IPV6_BASE = int(ipaddress.IPv6Address("2001:db8::"))
# First labels that are words of every sentence here.
_LISTED = """
foreman katello muster proxy smartproxy smart-proxy puppet puppetca pulp dns dhcp balancer member members store content local
localhost status ready http https registry haproxy apache postgres postgresql database db www cluster host client server
services mirror satellite capsule
"""
_WORDS = frozenset(_LISTED.split())


@dataclass
class StandIns:
    """What stands for what.

    Attributes:
        count: how many were put in so far.
    """

    count: int = 0
    _hosts: dict[str, str] = field(default_factory=dict)
    _domains: dict[str, str] = field(default_factory=dict)
    _shorts: dict[str, str] = field(default_factory=dict)
    _ipv4: dict[str, str] = field(default_factory=dict)
    _ipv6: dict[str, str] = field(default_factory=dict)
    _macs: dict[str, str] = field(default_factory=dict)
    _pattern: re.Pattern[str] | None = None

    def learn(self, names: Iterable[str]) -> None:
        """Know these as names of hosts; what is none is passed over."""
        for name in names:
            low = name.lower().rstrip(".")
            # What ends in a number is a version.
            if len(low) > 253 or not _NAME.match(low) or low[low.rfind(".") + 1].isdigit() or low == "localhost":
                continue
            first, _, domain = low.partition(".")
            if domain:
                self._domain(domain)
            elif first in _WORDS:
                continue
            self._host(low)
            if first not in _WORDS and len(first) > 1:
                self._shorts.setdefault(first, self._host(low).partition(".")[0])
        self._pattern = None

    def learn_from(self, text: str) -> None:
        """Know the hosts of the URLs in a text."""
        self.learn(dict.fromkeys(_HOST_IN_URL.findall(text)))

    def text(self, text: str) -> str:
        """Return a text with stand-ins."""
        text = self._names().sub(self._of_name, text)
        text = _MAC.sub(self._of_mac, text)
        return _IPV6.sub(self._of_ipv6, _IPV4.sub(self._of_ipv4, text))

    def _names(self) -> re.Pattern[str]:
        if self._pattern is None:
            longest = sorted(self._domains, key=lambda d: (-len(d), d))
            domains = "|".join(re.escape(d) for d in longest) or r"(?!)"
            # A domain of one label is one behind another label only: test is a word, proxy.test is not.
            bare = "|".join(re.escape(d) for d in longest if "." in d) or r"(?!)"
            hosts = (
                "|".join(re.escape(h) for h in sorted([*self._hosts, *self._shorts], key=lambda h: (-len(h), h)))
                or r"(?!)"
            )
            # From the beginning of a word alone, so that each is looked at once.
            self._pattern = re.compile(
                rf"(?<![A-Za-z0-9.-])(?=[A-Za-z0-9])(?:(?:[A-Za-z0-9-]{{1,63}}\.){{1,30}}(?:{domains})|{bare}|{hosts})(?![A-Za-z0-9-])",
                re.IGNORECASE,
            )
        return self._pattern

    def _domain(self, domain: str) -> str:
        if domain not in self._domains:
            count = len(self._domains)
            self._domains[domain] = "example.com" if not count else f"domain{count + 1}.example.com"
        return self._domains[domain]

    def _host(self, name: str) -> str:
        if name not in self._hosts:
            domain = max((d for d in self._domains if name.endswith(f".{d}")), key=len, default="")
            here = f".{self._domains[domain]}" if domain else ""
            self._hosts[name] = f"host{len(self._hosts) + 1}{here}"
        return self._hosts[name]

    def _of_name(self, found: re.Match[str]) -> str:
        self.count += 1
        name = found[0].lower()
        if name in self._hosts:
            return self._hosts[name]
        return self._shorts.get(name) or self._domains.get(name) or self._host(name)

    def _of_ipv4(self, found: re.Match[str]) -> str:
        try:
            address = ipaddress.IPv4Address(found[0])
        except ValueError:
            return found[0]
        if address.is_loopback or address.is_unspecified or int(address) == _BROADCAST:
            return found[0]
        self.count += 1
        if found[0] not in self._ipv4:
            number = len(self._ipv4) + 1
            for network in _NETWORKS:
                if number < network.num_addresses - 1:
                    self._ipv4[found[0]] = str(network[number])
                    break
                number -= network.num_addresses - 2
        return self._ipv4[found[0]]

    def _of_ipv6(self, found: re.Match[str]) -> str:
        if found[0].count(":") < 2:
            return found[0]
        try:
            address = ipaddress.IPv6Address(found[0])
        except ValueError:
            return found[0]
        if address.is_loopback or address.is_unspecified:
            return found[0]
        self.count += 1
        number = len(self._ipv6) + 1
        return self._ipv6.setdefault(address.compressed, str(ipaddress.IPv6Address(_IPV6_BASE + number)))

    def _of_mac(self, found: re.Match[str]) -> str:
        self.count += 1
        mac = found[0].lower().replace("-", ":")
        # For documentation (RFC 7042); locally administered ones behind those.
        number = len(self._macs)
        first, rest = ("00:00:5e:00:53", number) if number < 256 else ("02:00:00", number)
        octets = (rest,) if number < 256 else (rest >> 16 & 255, rest >> 8 & 255, rest & 255)
        return self._macs.setdefault(mac, ":".join([first, *(f"{o:02x}" for o in octets)]))
