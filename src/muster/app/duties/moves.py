"""Where is this member's Pulp, by what an administrator has typed into the services register?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from muster.app.duties.duty import NOTHING, Duty, Found
from muster.app.listed import Listed
from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile
from muster.cluster.service import MEMBERS
from muster.cluster.services import register
from muster.content.service import Content
from muster.kernel import log
from muster.kernel.errors import MusterError
from muster.kernel.names import STANDARD_PORTS
from muster.store.reading import Readable

_log = log.logger("app")


class PulpFollowed(Duty):
    """Leads content to where the register says that Pulp is, and back to the settings when it says nothing any more.

    Of the entry ``pulp``, or the member's own, what was typed in counts: the control URL for Pulp's API, the URL for clients
    of the network ``members`` for its content application. Without the store nothing moves.
    """

    name = "pulp's place"
    every_s = 5.0

    def __init__(
        self,
        member: str,
        listed: Listed,
        store: Readable,
        balancing: Balancing,
        content: Content,
        tell: Callable[[Mapping[str, str]], None],
    ) -> None:
        """``tell`` hears what is led where that is not where the settings say, whenever that changes."""
        self._member, self._listed, self._store, self._balancing = member, listed, store, balancing
        self._content, self._tell = content, tell
        self._led: dict[str, str] = {}
        self._note = ""

    async def beat(self) -> None:
        cluster = self._listed.latest
        try:
            found = (await register(self._store, {})).of_member("pulp", cluster.member(self._member))
            led: dict[str, str] = {}
            if found is not None and found.typed("control_url") and found.control_url:
                led["api"] = found.control_url
            if found is not None and found.typed(f"client_urls.{MEMBERS}"):
                led["content"] = found.client_urls[MEMBERS]
            back = {name: url for name, url in led.items() if leads_back(url, cluster, self._balancing)}
            self._note = "".join(
                f"{url}, where the services register says that Pulp is, leads back to members; it is not followed"
                for url in sorted(set(back.values()))[:1]
            )
            led = {name: url for name, url in led.items() if name not in back}
            if led != self._led:
                await self._content.lead(led)
                self._led = led
                self._tell(led)
        except MusterError as e:
            _log.debug("Where Pulp is was not looked up", why=str(e))

    def found(self) -> Found:
        return Found(notes=(self._note,)) if self._note else NOTHING


def leads_back(url: str, cluster: ClusterFile, balancing: Balancing) -> bool:
    """Whether a URL leads to ports that members answer themselves: each call would come back, until connections run out."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or STANDARD_PORTS.get(parts.scheme)
    except ValueError:
        return True
    answered = cluster.content.services if cluster.content is not None else ()
    ours = [s for name in answered if (s := balancing.service(name)) is not None]
    members = {str(v).lower() for m in cluster.members if m.kind == "muster" for v in (m.name, m.address)}
    names = {str(n).lower() for n in cluster.names}
    return (host in members and port in {p for s in ours for p in (s.member_port, *(v.port for v in s.servers))}) or (
        host in names and port in {p for s in ours for p in s.listen_ports}
    )
