"""``muster-autosign``: what a puppetserver's ``autosign`` setting runs, so that Foreman's tokens count there, too.

puppetserver gives the certname as the argument and the request on standard input, and signs when this ends with 0. The
request is sent to the cluster, which knows the tokens; a file says where it is.
"""

from __future__ import annotations

import http.client
import os
import re
import ssl
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

DEFAULT_SETTINGS = Path("/etc/muster/autosign.yaml")
_LIMIT_BYTES = 64 << 10
_TIMEOUT_S = 15.0
_CERTNAME = re.compile(r"[a-z0-9_.-]{1,253}\Z")
_SIGN, _REFUSE, _FAILED = 0, 1, 2


def main() -> None:
    """Ask the cluster; exit 0: sign, 1: do not, 2: it could not be asked (puppetserver does not sign then either)."""
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.stderr.write(f"{__doc__}\nUsage: muster-autosign CERTNAME < REQUEST\n")
        sys.exit(_SIGN if len(sys.argv) == 2 else _FAILED)
    try:
        sys.exit(_asked(sys.argv[1], sys.stdin.buffer.read(_LIMIT_BYTES + 1)))
    except (OSError, ValueError, http.client.HTTPException) as e:
        sys.stderr.write(f"muster-autosign: {e}\n")
        sys.exit(_FAILED)


def _asked(certname: str, request: bytes) -> int:
    from muster.authority.x509 import csr
    from muster.kernel.errors import Rejected

    if not _CERTNAME.match(certname) or len(request) > _LIMIT_BYTES:
        return _REFUSE
    try:
        if csr.read(request).name != certname:
            return _REFUSE
    except Rejected:
        return _REFUSE
    settings = _settings()
    url = urlsplit(str(settings["url"]))
    if url.scheme != "https" or not url.hostname:
        raise ValueError(f"url {settings['url']} is not https://HOST:PORT")
    context = ssl.create_default_context(cafile=str(settings["ca"]))
    context.load_cert_chain(str(settings["certificate"]), str(settings["key"]))
    connection = http.client.HTTPSConnection(url.hostname, url.port or 9090, timeout=_TIMEOUT_S, context=context)
    try:
        headers = {"Content-Type": "text/plain", "Accept": "application/json"}
        connection.request("POST", "/puppet/ca/validate", request, headers)
        answer = connection.getresponse()
        said = answer.read(1000).decode("utf-8", "replace")
    finally:
        connection.close()
    if answer.status == 200:
        return _SIGN
    if answer.status == 404:
        return _REFUSE
    raise ValueError(f"{settings['url']} answered {answer.status}: {said}")


def _settings() -> dict[str, Any]:
    import yaml

    path = Path(os.environ.get("MUSTER_AUTOSIGN", DEFAULT_SETTINGS))
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, RecursionError) as e:
        # Ended by a traceback, this would say "do not sign" instead of "could not be asked".
        raise ValueError(f"{path} is not YAML") from e
    wanted = {"url", "ca", "certificate", "key"}
    if not isinstance(found, dict) or found.keys() != wanted:
        raise ValueError(f"{path} must say {', '.join(sorted(wanted))} and nothing else")
    return found
