"""The Puppet CA: what its HTTP API, its command line and Foreman's side ask of it.

Any member answers anything: the ledger is in the store, the key is at every member, and nothing is remembered between calls
but what never changes and what is looked at anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from muster.authority.autosign import Autosign
from muster.authority.certificates import Certificates
from muster.authority.copies import Copies
from muster.authority.hand import Hand
from muster.authority.keys import custody
from muster.authority.keys.proof import Proof
from muster.authority.ledger.ledger import Ledger
from muster.authority.ledger.lookup import Published
from muster.authority.lists import RevocationLists
from muster.authority.requests import Requests
from muster.authority.reserved import Reserved
from muster.authority.x509.profile import Issuer
from muster.cluster.file import Authority as Settings
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Misconfigured, Unavailable
from muster.store.engine import Store


class PuppetCA:
    """One member's hand on the cluster's CA, by what is asked of it. Use :func:`opened`.

    Attributes:
        requests: what hosts ask for.
        certificates: what was issued.
        lists: what is revoked, as it is published.

    Concurrency: any number of calls at once, of any number of members. Signing runs in threads.
    """

    def __init__(self, hand: Hand, autosign: Autosign, copies: Copies | None = None) -> None:
        self.issuer = hand.issuer
        self.settings = hand.settings
        self.autosign = autosign
        self.lists = RevocationLists(hand, copies)
        self.certificates = Certificates(hand, self.lists)
        self.requests = Requests(hand, autosign)
        self._hand = hand
        self._proof = Proof(hand.key, hand.issuer, hand.settings.key.kind)

    @property
    def chain_pem(self) -> str:
        """The CA's bundle: the same bytes on every member, for ever."""
        return self.issuer.chain_pem

    @property
    def list_now(self) -> Published | None:
        """The revocation lists as this member saw them last; None when it never did."""
        return self.lists.last

    @property
    def waiting(self) -> int:
        """How many requests waited for an administrator when :meth:`keep_up` looked last."""
        return self.requests.waiting

    async def reached(self) -> None:
        """Return when the ledger answers.

        Raises:
            Unavailable: the store did not answer.
        """
        await self._hand.ledger.number()

    async def keep_up(self) -> None:
        """Throw late requests away, renew a list that ends soon, and see the one in force; called now and then.

        Raises:
            Unavailable: the store did not answer.
        """
        await self.requests.keep_up()
        await self.lists.keep_up()

    async def follow(self) -> None:
        """See the lists in force; called each beat.

        Raises:
            Unavailable: the store did not answer.
        """
        await self.lists.follow()

    async def prove(self) -> None:
        """Have a key that is held elsewhere sign something small: an absent one is noticed here, not by an agent.

        Raises:
            Unavailable: its holder has not signed in time.
            Misconfigured: its holder does not answer, or signs with another key.
        """
        await self._proof.prove()

    async def close(self) -> None:
        """Give up what still waits for the key."""
        await self._proof.close()


@contextlib.asynccontextmanager
async def opened(
    store: Store,
    settings: Settings,
    *,
    member: str,
    home: Path,
    state: Path | None = None,
    clock: Clock | None = None,
    reserved: Reserved | None = None,
) -> AsyncIterator[PuppetCA]:
    """Hold the CA open.

    ``home`` is where its key is by default; ``state`` is where its bundle and last lists are kept for times without the
    store, without it also ``home``. ``reserved`` are the cluster's names, which autosigning does not give away.

    Raises:
        Misconfigured: there is no CA yet, or its key is missing or another one's.
        Unavailable: the store does not answer, and this member has never seen the bundle.
    """
    ledger = Ledger(store, member)
    copies = Copies(state or home)
    try:
        chain = await ledger.chain()
        if chain is None:
            raise Misconfigured("The store holds no Puppet CA; muster ca init or muster ca import makes one")
        copies.keep_bundle(chain)
    except Unavailable:
        chain = copies.bundle()
        if chain is None:
            raise
    issuer = Issuer.read(chain)
    with contextlib.ExitStack() as stack:
        held = custody.named(settings.key, home / "ca_key.pem").opened(issuer)
        # In a thread: a signer process or a token may take long to answer.
        key = await asyncio.to_thread(stack.enter_context, held)
        hand = Hand(ledger, settings, issuer, key, clock or SystemClock())
        ca = PuppetCA(hand, Autosign(store, settings, reserved), copies)
        try:
            await ca.lists.served()
        except Unavailable:
            ca.lists.recall()
        try:
            yield ca
        finally:
            await ca.close()
