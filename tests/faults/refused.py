"""``python -m tests.faults.refused``: calls of protected routes without a certificate, one after another."""

from __future__ import annotations

import argparse
import http.client
import ssl
import sys


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.refused", description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--source", default="127.0.0.200")
    parser.add_argument("--calls", type=int, default=1000)
    given = parser.parse_args()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(
        given.host, given.port, context=tls, source_address=(given.source, 0), timeout=20
    )
    wrong = 0
    for _ in range(given.calls):
        connection.request("GET", "/v2/features")
        answer = connection.getresponse()
        answer.read()
        wrong += answer.status != 403
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
