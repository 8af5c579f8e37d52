"""What a backup says of itself: the manifest in front, the sums at the end."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from muster.app.backup.entries import Sum
from muster.kernel.errors import Misconfigured
from muster.kernel.names import shown

FORMAT = 1
MANIFEST, SUMS = "MANIFEST.json", "SUMS.json"
LARGEST_BYTES = 16 << 20

M = TypeVar("M", bound=BaseModel)
Text = Annotated[str, StringConstraints(max_length=4096)]


class _Said(BaseModel):
    # A later Muster may say more; what it may not change without another format number is what is read here.
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class OfFile(_Said):
    """A file in a backup, and how it lay on the host that made it."""

    name: Text
    path: Text
    mode: Annotated[int, Field(ge=0, le=0o777)]
    owner: Text


class OfLeft(_Said):
    """What is not in a backup, and why."""

    what: Text
    why: Text


class Manifest(_Said):
    """What a backup is of, and what is in it."""

    format: Literal[1]
    id: Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{32}\z")]
    muster: Text
    schema_: Annotated[str, StringConstraints(pattern=r"\A[0-9a-z]{1,32}\z")] = Field(alias="schema")
    taken_at: float
    cluster: Text
    generation: Text
    host: Text
    store: Text
    cluster_file: Text
    pki: Text
    files: tuple[OfFile, ...]
    tables: tuple[Text, ...]
    left: tuple[OfLeft, ...]

    @property
    def moment(self) -> str:
        return datetime.fromtimestamp(self.taken_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class OfEntry(_Said):
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{64}\z")]


class Sums(_Said):
    """What every entry before is checked by, and how many rows each table has."""

    entries: dict[str, OfEntry]
    rows: dict[str, Annotated[int, Field(ge=0)]]

    def sum_of(self, name: str) -> Sum | None:
        found = self.entries.get(name)
        return Sum(found.size, found.sha256) if found is not None else None


def read(model: type[M], content: bytes, name: str, where: str) -> M:
    """Return what an entry says.

    Raises:
        Misconfigured: it says nothing that can be understood, or in another format.
    """
    try:
        said: Any = json.loads(content)
        form = said.get("format", FORMAT) if isinstance(said, dict) else None
        if form != FORMAT:
            by = shown(said.get("muster")) if isinstance(said, dict) else "somebody"
            raise Misconfigured(f"{where} has format {shown(form)}, made by Muster {by}; this Muster reads {FORMAT}")
        return model.model_validate_json(content)
    except ValidationError as e:
        first = e.errors(include_input=False, include_url=False)[0]
        at = ".".join(str(p) for p in first["loc"])
        raise Misconfigured(f"{name} in {where} cannot be read: {shown(at)}: {first['msg']}") from e
    except (ValueError, RecursionError) as e:
        raise Misconfigured(f"{name} in {where} cannot be read: {e}") from e


def text(content: Any) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"
