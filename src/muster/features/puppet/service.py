"""Foreman's words around environments and classes. Source: docs/facts/smart-proxy-protocol.md §11."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from muster.edge.feature import Surroundings, said
from muster.features.puppet.contract import PuppetProvider
from muster.features.puppet.settings import PuppetSettings
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import MusterError, NotFound, Rejected, Unavailable
from muster.kernel.names import shown
from muster.kernel.tasks import ended
from muster.policy.chain import chained

_NAME = re.compile(r"[A-Za-z0-9_]{1,200}\Z")
_DEFAULTS = ("default_literal", "default_source")
# Whoever was told to try again later does; by then an older answer would hide what was changed meanwhile.
_LATE_S = 300.0
_TOO_LONG = "Puppet is taking too long to respond, please try again later."


class Puppet:
    """The feature's service. Calls for one environment's classes share one question to the server.

    An answer that came after somebody had given up is kept for a while, and the next call has it.
    """

    def __init__(self, provider: PuppetProvider, *, wait_s: float, clock: Clock | None = None) -> None:
        self._provider = provider
        self._wait_s = wait_s
        self._clock = clock or SystemClock()
        self._asking: dict[str, asyncio.Task[list[dict[str, Any]]]] = {}
        self._given_up: set[str] = set()
        self._late: dict[str, tuple[float, list[dict[str, Any]]]] = {}

    async def reached(self) -> None:
        """Return when the server answers."""
        await self._provider.reached()

    async def environments(self) -> list[str]:
        """Return the names of the environments."""
        try:
            return [e.name for e in await self._provider.environments()]
        except MusterError as e:
            raise said("Failed to list puppet environments", e) from e

    async def environment(self, name: str) -> dict[str, Any]:
        """Return an environment's name and module paths.

        Raises:
            NotFound: in Foreman's words.
        """
        try:
            found = {e.name: e for e in await self._provider.environments()}
        except MusterError as e:
            raise said("Failed to show puppet environment", e) from e
        if name not in found:
            raise _unknown(name)
        return {"name": name, "paths": list(found[name].paths)}

    async def classes(self, environment: str) -> list[dict[str, Any]]:
        """Return the classes of an environment; manifests that cannot be parsed have none."""
        return [
            {c["name"]: _class(c)}
            for file in await self.classes_and_errors(environment)
            for c in _classes(file)
            if isinstance(c.get("name"), str)
        ]

    async def classes_and_errors(self, environment: str) -> list[dict[str, Any]]:
        """Return the manifests of an environment with their classes or their error.

        Raises:
            NotFound: in Foreman's words.
            NotAcceptable: it is no name of an environment. Not NotFound, which Foreman takes for an environment without
                classes.
            Unavailable: the server takes longer than a call may wait; it goes on, and the next call has the answer.
        """
        if (late := self._came_late(environment)) is not None:
            return [_told(file) for file in late]
        try:
            if not _NAME.match(environment):
                # The server's own words; it need not be asked.
                raise Rejected(f"400 The environment must be purely alphanumeric, not '{shown(environment)}'")
            async with asyncio.timeout(self._wait_s):
                # Whoever gives up must not end the question others wait for.
                return [_told(file) for file in await asyncio.shield(self._asked(environment))]
        except TimeoutError:
            self._given_up.add(environment)
            raise Unavailable(_TOO_LONG) from None
        except NotFound as e:
            raise _unknown(environment) from e
        except MusterError as e:
            raise said("Failed to show puppet classes", e) from e

    def _asked(self, environment: str) -> asyncio.Task[list[dict[str, Any]]]:
        task = self._asking.get(environment)
        if task is None or task.done():
            task = asyncio.create_task(self._provider.files(environment), name=f"classes of {environment}")
            self._asking[environment] = task
            task.add_done_callback(lambda t: self._asked_and_done(environment, t))
        return task

    def _asked_and_done(self, environment: str, task: asyncio.Task[list[dict[str, Any]]]) -> None:
        if self._asking.get(environment) is task:
            del self._asking[environment]
        given_up = environment in self._given_up
        self._given_up.discard(environment)
        # A question nobody waits for any more may fail unheard.
        if not task.cancelled() and task.exception() is None and given_up:
            self._late[environment] = self._clock.monotonic() + _LATE_S, task.result()

    def _came_late(self, environment: str) -> list[dict[str, Any]] | None:
        """Return, once, what came after somebody had given up; what is too old by now is forgotten."""
        now = self._clock.monotonic()
        # All of them: an answer may be large, and nobody may ever ask for it again.
        self._late = {e: kept for e, kept in self._late.items() if kept[0] > now}
        return self._late.pop(environment, (0.0, None))[1]

    async def close(self) -> None:
        """End the questions that still run."""
        await ended(self._asking.values())


def _classes(file: dict[str, Any]) -> list[dict[str, Any]]:
    given = file.get("classes")
    return [c for c in given if isinstance(c, dict)] if isinstance(given, list) else []


def _parameters(found: dict[str, Any]) -> list[dict[str, Any]]:
    given = found.get("params")
    return [p for p in given if isinstance(p, dict)] if isinstance(given, list) else []


def _told(file: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest with defaults that name a variable as Foreman shows them; the given one is kept as it is."""
    if not any(_interpolated(p.get(k)) != p.get(k) for c in _classes(file) for p in _parameters(c) for k in _DEFAULTS):
        return file
    classes = [
        {**c, "params": [{k: _interpolated(v) if k in _DEFAULTS else v for k, v in p.items()} for p in _parameters(c)]}
        for c in _classes(file)
    ]
    return {**file, "classes": classes}


def _class(found: dict[str, Any]) -> dict[str, Any]:
    module, separator, name = found["name"].partition("::")
    params = {p["name"]: _default(p) for p in _parameters(found) if "name" in p}
    return {
        "name": name if separator else found["name"],
        "module": module if separator else None,
        "params": params,
    }


def _default(parameter: dict[str, Any]) -> Any:
    # A literal false falls through to its source, the text "false": so it does in Ruby, and members of both kinds must say
    # the same, or every such parameter would change with each import.
    literal = parameter.get("default_literal")
    return parameter.get("default_source") if literal is None or literal is False else literal


def _interpolated(value: Any) -> Any:
    """Return ``$x`` as ``${x}``: Foreman shows it inside a text."""
    if isinstance(value, str) and value.startswith("$") and not value.startswith("${"):
        return f"${{{value[1:]}}}"
    return value


def _unknown(environment: str) -> NotFound:
    name = environment if _NAME.match(environment) else shown(environment)
    return NotFound(f"Could not find environment '{name}'")


@asynccontextmanager
async def opened(settings: PuppetSettings, around: Surroundings) -> AsyncIterator[Puppet]:
    """Yield the service with its provider open.

    Raises:
        Misconfigured: its settings cannot work.
    """
    from muster.features.puppet import providers

    # Parsing may take minutes, so the policies' own deadline would cut what the settings allow.
    deadline_s = max(settings.policies.deadline_s, settings.classes_timeout_s)
    policies = settings.policies.model_copy(update={"deadline_s": deadline_s})
    built = around.chains.built(
        "puppet", policies, around.operations, label=f"puppet/{settings.provider}", word=settings.provider
    )
    async with providers.opened(settings) as provider:
        service = Puppet(chained(PuppetProvider, provider, built), wait_s=settings.api_timeout_s)  # type: ignore[type-abstract]
        try:
            yield service
        finally:
            await service.close()
