"""Debian's Chromium, headless, driven by Playwright; and axe-core, which examines what it shows."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Error, Page, async_playwright

Scheme = Literal["light", "dark"]
WIDTHS = (400, 1600)
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
_IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"


@dataclass
class Window:
    """A page as a reader has it.

    Attributes:
        said: what stood in the console, errors of scripts included.
    """

    page: Page
    said: list[str] = field(default_factory=list)

    async def examined(self) -> list[str]:
        """Return what axe-core holds for serious or critical, each with the elements it is about."""
        # The page's policy admits no script of another; the debugger's own evaluation is not the page's.
        await self.page.evaluate(_axe())
        found: Any = await self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{v['id']} ({v['impact']}): {', '.join(str(n['target']) for n in v['nodes'][:4])}"
            for v in found["violations"]
            if v["impact"] in ("serious", "critical")
        ]

    async def is_within(self) -> bool:
        """Whether nothing makes the page itself scroll sideways."""
        return bool(await self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))

    async def pictured(self, name: str, *, whole: bool = False) -> None:
        """Write a picture of it for the documents, where that was asked for (MUSTER_SCREENSHOTS=1)."""
        if os.environ.get("MUSTER_SCREENSHOTS"):
            _IMAGES.mkdir(exist_ok=True)
            await self.page.screenshot(path=_IMAGES / f"{name}.png", full_page=whole)


def _axe() -> str:
    return (resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8")


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Hold a Chromium open."""
    async with async_playwright() as playwright:
        # Its own sandbox needs rights that a container's root does not have.
        opened = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        try:
            yield opened
        finally:
            await opened.close()


@contextlib.asynccontextmanager
async def window(
    opened: Browser,
    *,
    width: int = 1600,
    height: int = 900,
    scheme: Scheme = "light",
    scripts: bool = True,
    certificate: tuple[str, Path, Path] | None = None,
) -> AsyncIterator[Window]:
    """Yield an empty page; ``certificate`` is an origin and the certificate and key that it is shown."""
    shown: Any = (
        [{"origin": certificate[0], "certPath": certificate[1], "keyPath": certificate[2]}] if certificate else None
    )
    context: BrowserContext = await opened.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, java_script_enabled=scripts,
        ignore_https_errors=True, client_certificates=shown,
    )  # fmt: skip
    try:
        made = Window(await context.new_page())

        def heard(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                made.said.append(message.text)

        def broke(error: Error) -> None:
            made.said.append(str(error))

        made.page.on("console", heard)
        made.page.on("pageerror", broke)
        yield made
    finally:
        await context.close()
