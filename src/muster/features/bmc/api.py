"""Routes of the BMC feature (docs/facts/smart-proxy-protocol.md §13): what may be asked, and the answers as JSON.

Where a path ends before its action, the answer says which actions there are, and no BMC is asked.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, get_args

from muster.edge.replies import Reply, json_reply
from muster.edge.request import NotUnderstood, Request
from muster.edge.routes import Access, Mount, Route
from muster.features.bmc.contract import ControllerField, FruField, LanField, Power
from muster.features.bmc.service import BMC, DEVICES, Call
from muster.kernel.errors import Rejected
from muster.kernel.names import host_or_address, refuse_unless_text, shown

_INVALID = "Invalid JSON content in body of request: "
_RESOURCES = {"available_resources": ["providers", "providers/installed", "host"]}
_NO_HOST = {"message": "You need to supply the hostname or ip of the actual bmc device"}
_PROVIDERS = ("freeipmi", "ipmitool", "redfish", "shell", "pyghmi")

Given = Mapping[str, Any]
Answer = Callable[[BMC, Request], Awaitable[Reply]]


async def given(request: Request) -> Given:
    """Return the parameters: of a JSON body, over it the query's and a form's, over all the path's.

    Raises:
        NotUnderstood: the body is announced as JSON and is none, or no object.
        Rejected: as :meth:`Request.params`.
    """
    return {**await _json(request), **await request.params()}


async def _json(request: Request) -> dict[str, Any]:
    kind = (request.header(b"content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json" or not (raw := await request.body()):
        return {}
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as e:
        raise NotUnderstood(f"{_INVALID}\n{shown(str(e), 200)}") from None
    if not isinstance(found, dict):
        raise NotUnderstood(f"{_INVALID}data must be a hash, not {_ruby_name(found)}")
    return found


def _ruby_name(value: Any) -> str:
    names = {list: "Array", str: "String", int: "Integer", float: "Float", bool: "TrueClass" if value else "FalseClass"}
    return names.get(type(value), "NilClass")


def _text(params: Given, name: str) -> str | None:
    value = params.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Rejected(f"Invalid parameter {name}: one text is expected, not a {type(value).__name__}")
    refuse_unless_text(value, f"parameter {name}")
    return value or None


def _call(request: Request, params: Given) -> Call:
    options = params.get("options")
    if options is not None and not isinstance(options, dict):
        raise Rejected(f"Invalid parameter options: a map is expected, not a {type(options).__name__}")
    options = options or {}
    return Call(
        request.arguments["host"],
        _text(params, "bmc_provider"),
        request.header(b"authorization"),
        _text(options, "driver"),
        _text(options, "privilege"),
    )


def _said(content: Mapping[str, Any], *, of_host: bool = True) -> Answer:
    """Return the endpoint of a path that ends before there is anything to ask."""

    async def say(_bmc: BMC, request: Request) -> Reply:
        if of_host:
            host_or_address(request.arguments["host"])
        await _json(request)
        return json_reply(content)

    return say


def _asked(hint: Mapping[str, Any], method: Callable[..., Awaitable[dict[str, Any]]], *more: str) -> Answer:
    """Return the endpoint that has a method of the service do the action of path or parameters, or says which there are.

    ``more`` names texts of the parameters that the method takes besides.
    """

    async def answer(bmc: BMC, request: Request) -> Reply:
        params = await given(request)
        action = _text(params, "action")
        if action is None:
            host_or_address(request.arguments["host"])
            return json_reply(hint)
        return json_reply(await method(bmc, _call(request, params), action, *(_text(params, name) for name in more)))

    return answer


async def installed(bmc: BMC, _request: Request) -> Reply:
    return json_reply({"installed_providers": bmc.installed})


async def test(bmc: BMC, request: Request) -> Reply:
    return json_reply(await bmc.tested(_call(request, await given(request))))


async def config(bmc: BMC, request: Request) -> Reply:
    params = await given(request)
    function = _text(params, "function")
    if function is None:
        host_or_address(request.arguments["host"])
        return json_reply({"functions": ["bootdevices"]})
    return json_reply(await bmc.bootdevices(_call(request, params), function))


async def configure(bmc: BMC, request: Request) -> Reply:
    params = await given(request)
    function, device = _text(params, "function"), _text(params, "action") or _text(params, "device")
    if function is None:
        host_or_address(request.arguments["host"])
        return json_reply({"functions": ["bootdevice"]})
    if device is None:
        host_or_address(request.arguments["host"])
        return json_reply({"actions": list(DEVICES), "options": ["reboot=true|false", "persistent=true|false"]})
    return json_reply(await bmc.boot(_call(request, params), function, device, params))


def _actions(*words: str) -> dict[str, list[str]]:
    return {"actions": list(words)}


def _routes(method: str, path: str, endpoint: Answer, *, ends: str = "[/]") -> Route:
    return Route(method, path + ends, Access.TRUSTED, endpoint)


def _with_action(method: str, path: str, endpoint: Answer, argument: str = "action") -> tuple[Route, ...]:
    return _routes(method, path, endpoint), _routes(method, f"{path}/{{{argument}}}", endpoint)


_SENSORS = ("list", "count", "names", "fanlist", "templist", "get")
_sensors = _asked(_actions(*_SENSORS), BMC.sensors, "sensor")

MOUNT = Mount(
    "/bmc",
    (
        Route(
            "GET",
            "/",
            Access.TRUSTED,
            _said(_RESOURCES, of_host=False),
        ),
        _routes("GET", "/providers", _said({"providers": list(_PROVIDERS)}, of_host=False)),
        _routes("GET", "/providers/installed", installed),
        _routes(
            "GET",
            "/host",
            _said(_NO_HOST, of_host=False),
        ),
        _routes("GET", "/{host}", _said(_actions("chassis", "lan", "test", "fru", "bmc", "sensors"))),
        _routes("GET", "/{host}/test", test),
        _routes("GET", "/{host}/chassis", _said(_actions("power", "identify", "config"))),
        *_with_action("GET", "/{host}/chassis/power", _asked(_actions("on", "off", "status"), BMC.power)),
        *_with_action("PUT", "/{host}/chassis/power", _asked(_actions(*get_args(Power)), BMC.switch)),
        *_with_action("GET", "/{host}/chassis/identify", _asked(_actions("status"), BMC.identified)),
        *_with_action("PUT", "/{host}/chassis/identify", _asked(_actions("on", "off"), BMC.identify)),
        *_with_action("GET", "/{host}/chassis/config", config, "function"),
        *_with_action("PUT", "/{host}/chassis/config", configure, "function"),
        _routes("PUT", "/{host}/chassis/config/{function}/{action}", configure),
        *_with_action("GET", "/{host}/lan", _asked(_actions(*get_args(LanField)), BMC.lan)),
        *_with_action("GET", "/{host}/fru", _asked(_actions(*get_args(FruField)), BMC.fru)),
        *_with_action("GET", "/{host}/bmc", _asked(_actions(*get_args(ControllerField)), BMC.controller)),
        *_with_action("PUT", "/{host}/bmc", _asked(_actions("reset"), BMC.reset, "type")),
        *_with_action("GET", "/{host}/sensors", _sensors),
        _routes("GET", "/{host}/sensors/{action}/{sensor}", _sensors),
    ),
)
