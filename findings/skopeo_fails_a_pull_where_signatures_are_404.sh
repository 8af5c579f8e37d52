#!/usr/bin/env bash
# skopeo 1.9.3 (Debian 12): a registry whose answers carry `X-Registry-Supports-Signatures: 1`, as Pulp's do
# (pulp-container 2.30.0), is asked for `/extensions/v2/NAME/signatures/DIGEST` with each image, also where no signature is
# wanted (`--insecure-policy`). 404 there, for an image that has none, fails the whole pull, be it text or an error in the
# form of the distribution specification; only 200 with an empty list goes on. Without the header nobody asks.
#
# Seen, exit codes of `skopeo copy`: without the header 0; with it and 404 as text 1 ("error parsing HTTP 404 response body"),
# 404 as JSON 1 ("reading signatures"), 200 with {"signatures":[]} 0. So a proxy in front of such a registry that leads on
# /v2/ alone has to lead on /extensions/v2/, too, or drop that header.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download skopeo=1.9.3+ds1-1+b10 libgpgme11=1.18.0-3+deb12u1 libassuan0=2.5.5-5 libdevmapper1.02.1=2:1.02.185-2 >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu
root/usr/bin/skopeo --version

python3 - "$work/root/usr/bin/skopeo" <<'P'
import gzip, hashlib, io, json, subprocess, sys, tarfile, tempfile, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


empty = io.BytesIO()
tarfile.open(fileobj=empty, mode="w").close()
layer = gzip.compress(empty.getvalue(), mtime=0)
config = json.dumps(
    {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(empty.getvalue())]}}
).encode()
KIND = "application/vnd.docker.distribution.manifest.v2+json"
manifest = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": KIND,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": digest(config),
        },
        "layers": [
            {
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(layer),
                "digest": digest(layer),
            }
        ],
    }
).encode()
OCTETS = "application/octet-stream"


class Registry(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        found = {
            "/v2/": (200, "application/json", b"{}"),
            "/v2/image/manifests/1": (200, KIND, manifest),
            f"/v2/image/blobs/{digest(config)}": (200, OCTETS, config),
            f"/v2/image/blobs/{digest(layer)}": (200, OCTETS, layer),
        }
        status, kind, body = found.get(self.path, self.server.signatures)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.server.says_so:
            self.send_header("X-Registry-Supports-Signatures", "1")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None: ...


def pulled(says_so: bool, status: int, kind: str, body: bytes) -> int:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    server.says_so, server.signatures = says_so, (status, kind, body)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(
            [
                sys.argv[1], "--insecure-policy", "copy", "--src-tls-verify=false",
                f"docker://127.0.0.1:{server.server_address[1]}/image:1", f"dir:{out}/image",
            ],
            capture_output=True, text=True,
        )
    server.shutdown()
    return done.returncode


ERROR = b'{"errors":[{"code":"NOT_FOUND","message":"no signatures"}]}'
seen = {
    "no header": pulled(False, 404, "text/plain", b"not found"),
    "404 as text": pulled(True, 404, "text/plain", b"not found"),
    "404 as JSON": pulled(True, 404, "application/json", ERROR),
    "an empty list": pulled(True, 200, "application/json", b'{"signatures":[]}'),
}
for what, code in seen.items():
    print(f"{what}: exit {code}")
assert seen == {"no header": 0, "404 as text": 1, "404 as JSON": 1, "an empty list": 0}
P
