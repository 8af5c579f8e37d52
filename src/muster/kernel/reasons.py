"""What the operating system or TLS said when something failed, in words for a person."""

from __future__ import annotations

import os
import ssl


def spoken(error: BaseException) -> str:
    """Return why a call over the network failed; never Python's own spelling of an error or an address."""
    inner = _inner(error)
    if isinstance(inner, ssl.SSLCertVerificationError) and inner.verify_message:
        return f"the certificate is not accepted: {inner.verify_message}"
    if isinstance(inner, ssl.SSLError) and inner.reason:
        return inner.reason.replace("_", " ").lower()
    if isinstance(inner, TimeoutError) and not inner.errno:
        return "no answer in time"
    if isinstance(inner, OSError):
        # Loops put the address they tried into the error's text; the operating system has words of its own.
        if inner.errno and inner.errno > 0 and not isinstance(inner, ssl.SSLError):
            return os.strerror(inner.errno)
        return inner.strerror or str(inner) or type(inner).__name__
    return str(error) or type(error).__name__


def _inner(error: BaseException) -> BaseException:
    """Return the error below those of an HTTP library, which only repeat it in other words."""
    for name in ("certificate_error", "os_error", "_os_error"):
        below = getattr(error, name, None)
        if isinstance(below, BaseException) and below is not error:
            return _inner(below)
    return error
