"""What the doctor can find out about the balancer of a host: HAProxy itself, and what it was given."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from muster.balancer.haproxy import descriptors
from muster.balancer.haproxy.layout import Layout
from muster.balancer.haproxy.render import RuntimePaths, generation, is_untouched, rendered
from muster.balancer.haproxy.sockets import MasterSocket, RuntimeSocket, ServerState
from muster.balancer.haproxy.version import HAProxyVersion
from muster.balancer.model import Balancing
from muster.balancer.steering import Place, held_out, noted_refusal
from muster.cluster.checks import of_refusal
from muster.cluster.file import Balancer, ClusterFile
from muster.cluster.life import Life, in_maintenance
from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.files import Account, read_bounded
from muster.kernel.findings import Check, Finding
from muster.pki.bundles import paths as bundle_paths
from muster.pki.checks import of_complaint
from muster.pki.verify import verify_files

_HEAD = re.compile(r"\A# Rendered by Muster \S+ for balancer (?P<name>\S+) of cluster \S+, (?P<haproxy>HAProxy [\d.]+)")
_NEARLY_FULL = 0.9
_APPLY = "Start it again with muster balance, or systemctl reload muster-balancer; its log says why it did not follow."

# What HAProxy's two letters and their continuation mean for whoever has to mend it: cause and remedy.
_OUT = {
    "L4TOUT": (
        "Packets from the balancer to the member vanish: a firewall drops them, or the host is down.",
        "On the balancer's host connect to that port; then look at the firewalls between.",
    ),
    "L4CON": (
        "Nothing listens there, or a firewall refuses.",
        "Start the member; compare its address and port with: ss -ltnp",
    ),
    "L6": (
        "TLS between balancer and member fails: the check certificate or the member's is expired or of another CA.",
        "muster certs verify; issue what it complains of again.",
    ),
    "L7OK": (
        "muster balance asked it twice without a good answer; HAProxy's own checks have not been there since.",
        "muster status has the member's own reason; one that hangs has to be restarted.",
    ),
    "L7TOUT": ("The member takes connections and does not answer in time.", "Look at its load and log."),
    "L7": (
        "The member itself says that it is not ready, or something else answers there.",
        "muster status has its reason.",
    ),
}
_UNKNOWN = ("HAProxy's check of it fails.", "muster status shows what the member itself says.")


@dataclass(frozen=True)
class Here:
    """The balancer of this host.

    Attributes:
        pki: the cluster's PKI directory.
        limit: how many descriptors a process may open; None asks about one that HAProxy would start now.
        lives: where members stand; None: the store does not say.
    """

    cluster: ClusterFile
    balancing: Balancing
    run: Path
    pki: Path
    now: datetime
    limit: Callable[[int | None], int]
    lives: Mapping[str, Life] | None = None

    @property
    def paths(self) -> RuntimePaths:
        return RuntimePaths(self.run.absolute(), (self.pki / "balancer").absolute())

    def checks(self) -> list[Check]:
        """Return the checks of HAProxy; all are silent on a host that is no balancer."""
        return [
            Check("haproxy.cfg", self._configuration),
            Check("HAProxy", self._process),
            Check("check certificate", self._bundle),
            Check("refused configuration", self._refusal),
        ]

    async def _refusal(self) -> Sequence[Finding]:
        noted = noted_refusal(self.run)
        return [of_refusal(*noted)] if noted is not None else []

    def _text(self) -> str | None:
        try:
            self.paths.config.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            # Not ours to see; reading says so in words.
            pass
        return read_bounded(self.paths.config, what="the balancer's configuration").decode("utf-8", "replace")

    def _seen(self) -> str:
        """As :meth:`_text`, empty when it may not be read either: one check says so for all."""
        try:
            return self._text() or ""
        except Misconfigured:
            return ""

    async def _configuration(self) -> Sequence[Finding]:
        text = self._text()
        if text is None:
            return []
        head = _HEAD.search(text)
        if head is None or not is_untouched(text):
            return [
                Finding(
                    "BALANCER-EDITED",
                    str(self.paths.config),
                    f"{self.paths.config} was changed by hand: it is not what its generation says",
                    "Somebody edited it, or restored another file; the next apply replaces it.",
                    "Make the change in the cluster file (muster render haproxy shows what follows from it), then undo this "
                    "one: systemctl reload muster-balancer.",
                    "warning",
                )
            ]
        which = next((b for b in self.cluster.balancers if b.name == head["name"]), None)
        said = (generation(text) or "")[:12]
        if which is not None and generation(text) in self._wanted(which, HAProxyVersion.parse(_spoken(head))):
            return []
        why = "the cluster file says otherwise by now" if which else f"the cluster file has no balancer {head['name']}"
        return [
            Finding(
                "BALANCER-STALE",
                str(self.paths.config),
                f"HAProxy's configuration {self.paths.config} (generation {said}) is not the cluster file's: {why}",
                "muster balance does not run, refused the new configuration, or has another Muster or cluster file.",
                _APPLY,
            )
        ]

    def _wanted(self, which: Balancer, version: HAProxyVersion) -> set[str | None]:
        # Whether the host had IPv6 when it was rendered is not worth a finding.
        texts = (
            rendered(self.balancing, which=which, runtime=self.paths, version=version, dual_stack=b)
            for b in (True, False)
        )
        return {generation(t) for t in texts}

    async def _process(self) -> Sequence[Finding]:
        text = self._seen()
        if not text:
            return []
        runtime = RuntimeSocket(self.paths.runtime_socket)
        try:
            info = _facts(await runtime.ask("show info"))
            await MasterSocket(self.paths.master_socket).processes()
            # Before and after: the balancer may take a server out, or let it in, while HAProxy is asked.
            ours = held_out(self.run)
            states = await runtime.servers()
            ours |= held_out(self.run)
        except Unavailable as e:
            return [
                Finding(
                    "BALANCER-DOWN",
                    "HAProxy",
                    str(e),
                    "HAProxy is not running here, hangs, or runs under an account whose sockets you may not use.",
                    "systemctl status muster-balancer; look at its log; run muster doctor as root or its account.",
                ),
                *self._descriptors(text, None),
            ]
        pid = info.get("Pid", "")
        return [
            *self._descriptors(text, int(pid) if pid.isdigit() else None),
            *_full(info),
            *(f for s in states for f in self._of_server(s, ours)),
        ]

    def _descriptors(self, text: str, pid: int | None) -> list[Finding]:
        complaint = descriptors.complaint_of(Layout.of(text), self.limit(pid))
        if complaint is None:
            return []
        return [
            Finding(
                "BALANCER-DESCRIPTORS",
                "HAProxy",
                str(complaint),
                "The limit of the unit or shell that started it is lower than the cluster file's maxconn needs.",
                "LimitNOFILE= in the unit muster-balancer and restart it, or a lower maxconn in the cluster file.",
            )
        ]

    def _of_server(self, state: ServerState, ours: frozenset[Place]) -> Iterator[Finding]:
        if self.balancing.service(state.backend) is None or state.server in in_maintenance(self.lives or {}):
            return
        place = f"{state.backend} on {state.server}"
        if state.status.startswith("DOWN"):
            cause, remedy = _meaning(state.check)
            said = " ".join(w for w in (state.check, state.last_check) if w) or "no answer"
            yield Finding(
                "BALANCER-OUT",
                place,
                f"HAProxy sends nothing of {state.backend} to {state.server}: {said}",
                cause,
                remedy,
            )
        elif (
            state.status.startswith(("MAINT", "DRAIN"))
            and self._takes_clients(state)
            and (state.backend, state.server) not in ours
        ):
            is_drained = state.status.startswith("DRAIN")
            yield Finding(
                "BALANCER-DRAIN" if is_drained else "BALANCER-MAINT",
                place,
                f"HAProxy has {state.server} {'drained' if is_drained else 'in maintenance'} for {state.backend}, "
                "and Muster did not ask for it",
                f"Somebody said so on HAProxy's own socket{', or set its weight to 0' if is_drained else ''}; Muster "
                "leaves that alone.",
                f"echo 'set server {state.backend}/{state.server} state ready' | "
                f"socat - {self.paths.runtime_socket}; from then on use muster {'drain' if is_drained else 'maintenance'}.",
                "warning",
            )

    def _takes_clients(self, state: ServerState) -> bool:
        """Whether the member shall; also while nobody has decided about it, or the store does not say."""
        found = {name.lower(): life for name, life in (self.lives or {}).items()}.get(state.server)
        return found is None or found.state == "ready"

    async def _bundle(self) -> Sequence[Finding]:
        bundle = bundle_paths(self.pki, "balancer", "balancer")
        ca = self.pki / "ca.pem"
        if not ca.exists() or not (bundle.certificate.exists() or self._seen()):
            return []
        # The configuration is its account's who reads the bundle.
        reader = Account.owner_of(self.paths.config)
        complaints = verify_files(bundle, ca, (), self.now, serves=False, reader=reader)
        return [
            Finding(
                "BALANCER-CHECK-EXPIRED",
                str(bundle.certificate),
                c.sentence,
                "HAProxy shows it in every health check: members refuse it, so all of them are down at once and the "
                "balancer fails open.",
                "muster certs issue --balancer; muster balance notices the new file by itself.",
            )
            if c.code == "TLS-EXPIRED"
            else of_complaint(c, str(bundle.certificate))
            for c in complaints
        ]


def limit_of(pid: int | None) -> int:
    """Return how many descriptors a process may open; None: a child of this one.

    As for one that starts, that is the hard limit: HAProxy raises the soft one as far as it counts itself.
    """
    if pid is not None:
        try:
            _soft, hard, *_ = Path(f"/proc/{pid}/limits").read_text().partition("Max open files")[2].split()
            return int(hard)
        except (OSError, ValueError):
            # Unlimited, or another user's process: only what would hold for a new one can be said.
            pass
    return descriptors.limit()


def _full(info: dict[str, str]) -> Iterator[Finding]:
    now, most = info.get("CurrConns", ""), info.get("Maxconn", "")
    if now.isdigit() and most.isdigit() and int(most) and int(now) >= _NEARLY_FULL * int(most):
        yield Finding(
            "BALANCER-FULL",
            "HAProxy",
            f"HAProxy holds {now} of at most {most} connections",
            "More clients than planned, or clients that keep connections open; the next ones wait in the kernel.",
            "Raise the balancer's maxconn in the cluster file, and LimitNOFILE with it.",
            "warning",
        )


def _facts(text: str) -> dict[str, str]:
    return {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in text.splitlines())}


def _meaning(check: str) -> tuple[str, str]:
    return _OUT.get(check) or _OUT.get(check[:2]) or _UNKNOWN


def _spoken(head: re.Match[str]) -> str:
    return head["haproxy"].replace("HAProxy ", "HAProxy version ")
