#!/usr/bin/env bash
# SQLAlchemy 2.1.9 with psycopg 3.3.9 on PostgreSQL 15: one read-only transaction on a pooled connection, and every later
# transaction of that connection begins READ WRITE in so many words. A server, database or role whose
# default_transaction_read_only is on (the soft fence of operators and hosted services) refuses the first write, and takes
# the write of a connection that has read before.
#
# Seen: "fresh connection: refused", then "after a read-only transaction: written".
set -euo pipefail
work=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
server=
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet sqlalchemy==2.1.9 psycopg==3.3.9 psycopg-binary==3.3.9
run=()
if [ "$(id -u)" -eq 0 ]; then
  chmod 755 "$work"
  mkdir "$work/db" && chown nobody "$work/db"
  run=(setpriv --reuid nobody --clear-groups)
else
  mkdir "$work/db"
fi
"${run[@]}" "$bin/initdb" -D "$work/db/data" -A trust -U fenced >/dev/null
"${run[@]}" "$bin/postgres" -D "$work/db/data" -p "$port" -k "$work/db" -c listen_addresses=127.0.0.1 >"$work/log" 2>&1 &
server=$!
cat >"$work/shown.py" <<'P'
import sys, time
import psycopg, sqlalchemy
from sqlalchemy import create_engine, text

url = f"fenced@127.0.0.1:{sys.argv[1]}/postgres"
for _ in range(100):
    try:
        with psycopg.connect(f"postgresql://{url}", autocommit=True) as c:
            c.execute("CREATE TABLE t (n int)")
            c.execute("ALTER ROLE fenced SET default_transaction_read_only = on")
        break
    except psycopg.OperationalError:
        time.sleep(0.1)
print("SQLAlchemy", sqlalchemy.__version__, "psycopg", psycopg.__version__)


def write(engine):
    try:
        with engine.begin() as c:
            c.execute(text("INSERT INTO t VALUES (1)"))
    except sqlalchemy.exc.DBAPIError as e:
        return "refused" if e.orig.sqlstate == "25006" else f"other: {e.orig}"
    return "written"


engine = create_engine(f"postgresql+psycopg://{url}", pool_size=1, max_overflow=0)
first = write(engine)
print("fresh connection:", first)
with engine.connect().execution_options(postgresql_readonly=True) as c:
    c.execute(text("SELECT 1"))
second = write(engine)
print("after a read-only transaction:", second)
sys.exit(0 if (first, second) == ("refused", "written") else 1)
P
"$work/venv/bin/python" "$work/shown.py" "$port"
