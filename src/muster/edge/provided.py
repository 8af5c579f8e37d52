"""A feature's provider as its settings want it: one, or a group of several, each within its policies."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from muster.edge.feature import GroupedFeatureSettings, Surroundings
from muster.kernel import log
from muster.kernel.errors import Misconfigured, MusterError
from muster.kernel.tasks import ended
from muster.policy.breaker import NotAsked
from muster.policy.chain import chained
from muster.policy.groups.everywhere import LONGEST_REPAIR_S, All, Codec, Merge
from muster.policy.groups.first import First
from muster.policy.groups.grouped import Way, grouped
from muster.policy.groups.journal import Journal
from muster.policy.groups.leader import Agreement, Leader
from muster.policy.marks import operations
from muster.policy.settings import GroupSettings
from muster.store.engine import Store
from muster.store.leases import Lease, Leases

_log = log.logger("edge")

C = TypeVar("C")
S = TypeVar("S", bound=GroupedFeatureSettings)

_BEAT_S = 1.0
# Who repairs is alone in that while he is at it.
_LEASE_S = LONGEST_REPAIR_S + 15


@dataclass(frozen=True)
class Groupable:
    """What has to be known of a contract so that several providers can be called as one.

    Attributes:
        codec: see :class:`~muster.policy.groups.everywhere.All`, as the next two.
        attributes: the contract's own that are no operations, from the providers that could be opened.
        certain: errors after which it is known that nothing was changed.
    """

    codec: Codec
    merges: Mapping[str, Merge] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    attributes: Callable[[list[Any]], Mapping[str, Any]] = lambda _: {}
    certain: tuple[type[MusterError], ...] = ()


@asynccontextmanager
async def provided(
    contract: type[C],
    settings: S,
    around: Surroundings,
    opened: Callable[[S, Surroundings], AbstractAsyncContextManager[C]],
    *,
    feature: str,
    groupable: Groupable,
) -> AsyncIterator[C]:
    """Yield the provider that the settings name, or the group that they name, within its policies.

    A provider of a group that cannot be opened is one that is away: the others do without it.

    Raises:
        Misconfigured: the provider, or each of the group, cannot be opened; or a group needs the store, and there is none.
    """
    async with AsyncExitStack() as stack:
        if settings.group is None:
            word = _word(settings)
            policies = around.chains.built(feature, settings.policies, around.operations, label=word, word=word)
            yield chained(contract, await stack.enter_async_context(opened(settings, around)), policies)
            return
        providers: dict[str, C] = {}
        failures: list[MusterError] = []
        for name, own in settings.each().items():
            policies = around.chains.built(
                feature, own.policies, around.operations, label=name, word=_word(own), name=name
            )
            try:
                provider = await stack.enter_async_context(opened(own, replace(around, provider=name)))
            except MusterError as e:
                _log.error("A provider of a group cannot be opened", feature=feature, provider=name, why=str(e))
                failures.append(e)
                providers[name] = _unopened(contract, e)
            else:
                providers[name] = chained(contract, provider, policies)
        if len(failures) == len(providers):
            raise failures[0]
        way = _way(settings.group, around, feature, groupable)
        around.chains.know(feature, way)
        if isinstance(way, All | Leader):
            stack.push_async_callback(way.close)
        if isinstance(way, All) and around.store is not None:
            repairing = _repairing(way, providers, around.store, around.member)
            stack.push_async_callback(ended, [asyncio.create_task(repairing, name=f"repairs of {feature}")])
        yield grouped(contract, providers, way, **groupable.attributes(list(providers.values())))


def _word(settings: GroupedFeatureSettings) -> str:
    # Every feature with providers has its own literal of their words.
    return str(getattr(settings, "provider"))  # noqa: B009


def _way(group: GroupSettings, around: Surroundings, feature: str, groupable: Groupable) -> Way:
    names = list(group.providers)
    if group.mode == "first":
        return First(feature, names, (*groupable.certain, NotAsked))
    if around.store is None:
        raise Misconfigured(f"A group of mode {group.mode} needs the store")
    if group.mode == "leader":
        return Leader(feature, names, Agreement(around.store, feature))
    journal = Journal(around.store, feature, names, groupable.codec)
    return All(feature, names, journal, groupable.codec, groupable.merges, groupable.refused)


def _unopened(contract: type[C], error: MusterError) -> C:
    """Return what stands for a provider that could not be opened."""

    async def refuse(_self: object, *_: Any, **__: Any) -> Any:
        raise type(error)(str(error))

    methods = {o.name: refuse for o in operations(cast(Any, contract))}
    return cast(C, type(f"{contract.__name__}Unopened", (), methods)())


async def _repairing(way: All, providers: Mapping[str, Any], store: Store, member: str) -> None:
    """Repair, one member at a time; the others look on."""
    leases, name, holder = Leases(store), f"repairs-{way.name}", f"{member}-{secrets.token_hex(8)}"
    held: Lease | None = None

    async def still() -> bool:
        nonlocal held
        held = await leases.acquire(name, holder, _LEASE_S)
        return held is not None

    while True:
        try:
            if await way.is_behind() and await way.has_work() and await still():
                await way.repair(providers, still)
        except MusterError as e:
            _log.debug("Repairs of a group were not looked at", feature=way.name, why=str(e))
        except Exception:  # noqa: BLE001 - boundary: one repair that breaks must not end all others
            _log.exception("Repairing broke", feature=way.name)
        finally:
            if held is not None:
                # Others have their turn: who does not reach a provider must not keep it from those who do.
                with contextlib.suppress(MusterError):
                    await asyncio.shield(leases.release(held))
                held = None
        await asyncio.sleep(_BEAT_S)
