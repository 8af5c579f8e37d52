from __future__ import annotations

import os

import yaml

from muster.app.access_log import AccessLog


async def test_finished_calls_are_written_together() -> None:
    reader, writer = os.pipe()
    try:
        log = AccessLog("json", "proxy01", writer)
        log("Finished GET /a with 200")
        log("Finished GET /\udcff with 404")
        log.flush()
        log.flush()
        lines = os.read(reader, 10_000).decode().splitlines()
        assert [yaml.safe_load(line)["event"] for line in lines] == [
            "Finished GET /a with 200",
            "Finished GET /? with 404",
        ]
        assert all(yaml.safe_load(line)["member"] == "proxy01" for line in lines)
    finally:
        os.close(reader)
        os.close(writer)


async def test_an_access_log_nobody_reads_any_more_stops_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        log = AccessLog(stream_fd=writer)
        log("Finished GET /a with 200")
        log.flush()
    finally:
        os.close(writer)
