"""What is known of one member, and where it stands by that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from muster.cluster.life import OUT, spoken

_ANSWERS = {"ready": "ready for", "draining": "draining", "unready": "not ready for", "unreachable": "no answer for"}


@dataclass(frozen=True)
class Known:
    """What is known of one member: what it told the store, what was decided about it, what it answers now.

    Attributes:
        said: its row, None when it never reported; a Ruby member never does.
        waiting: what the steward says it waits for.
    """

    kind: str
    said: dict[str, Any] | None
    life: dict[str, Any] | None
    answers: list[dict[str, Any]]
    store_answers: bool = True
    waiting: str = ""

    @property
    def stands(self) -> str:
        """Where it stands, in one word: what was decided, unless it is ready; then what is seen of it."""
        if self.life is not None and self.life["state"] in OUT:
            return str(self.life["state"])
        states = {a["state"] for a in self.answers}
        if states == {"unreachable"}:
            return "unreachable"
        if self._is_silent:
            return "silent"
        return next((s for s in ("unready", "unreachable", "draining") if s in states), "ready")

    @property
    def is_as_wished(self) -> bool:
        """Whether nothing of it needs anybody: it serves, or it is out because somebody wants it and does what that asks."""
        state = self.life["state"] if self.life else None
        if state == "maintenance":
            return True
        if self._is_silent:
            return False
        # A member that leaves answers so; a Ruby one does not know of it. One whose process is stopped says so itself.
        return all(a["state"] in ("ready", "draining") for a in self.answers)

    @property
    def _is_silent(self) -> bool:
        return self.store_answers and self.kind == "muster" and (self.said is None or bool(self.said["silent"]))

    @property
    def sentence(self) -> str:
        if not self.store_answers:
            return f"{self._answered}; where it stands is unknown, the store did not answer"
        state = self.life["state"] if self.life else None
        if self.life is not None and state != "ready":
            waits = f" ({self.waiting})" if self.waiting else ""
            return f"{spoken(self.life['state'], self.life['reason'])}{waits}{self._against(self.life['state'])}"
        if state is None and self.waiting:
            return f"nobody decided about it: {self.waiting}"
        if self.kind == "foreman":
            return self._answered
        if self.said is None:
            return "never reported"
        if self._is_silent:
            also = "" if self.stands == "unreachable" else f", though it answers: {self._answered}"
            return f"silent for {self.said['age_s']:.0f} s{also}"
        reason = f": {self.said['reason']}" if self.said["reason"] else ""
        return f"{self.said['state']}{reason}" if self.said["state"] != "ready" else self._answered

    @property
    def _answered(self) -> str:
        """What its answers come to."""
        by_state = {state: [a["service"] for a in self.answers if a["state"] == state] for state in _ANSWERS}
        if not self.answers:
            return "no service leads to it"
        if len(by_state["unreachable"]) == len(self.answers):
            return "it does not answer"
        parts = [f"{_ANSWERS[s]} {', '.join(names)}" for s, names in by_state.items() if names and s != "ready"]
        return "; ".join(parts) or "ready"

    def _against(self, state: str) -> str:
        """Return what is seen of it that does not go with where it stands."""
        if self.kind == "muster" and self.said is None:
            return "; it never reported"
        if self._is_silent and self.said is not None:
            return f"; silent for {self.said['age_s']:.0f} s"
        if self.said is not None and state in ("drained", "maintenance") and self.said["state"] == "ready":
            return "; it still says ready"
        return "; it does not answer" if self.kind == "foreman" and self._answered == "it does not answer" else ""
