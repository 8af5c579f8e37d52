"""HTML as a browser reads it: text, elements and attributes."""

from __future__ import annotations

from html.parser import HTMLParser


class Read(HTMLParser):
    """What a page has.

    Attributes:
        texts: every text between tags, and every text that stands for an image, without the spaces around it.
        elements: each element's name and attributes, in order.
        unclosed: elements that were left open.
    """

    _VOID = frozenset({"meta", "link", "input", "br", "img", "path", "circle"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.unclosed: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if label := dict(attrs).get("aria-label"):
            self.texts.append(label)
        if tag not in self._VOID:
            self.unclosed.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag == "p" and "p" not in self.unclosed:
            return
        while self.unclosed and self.unclosed[-1] in ("option", "li") and self.unclosed[-1] != tag:
            self.unclosed.pop()
        assert self.unclosed.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(" ".join(data.split()))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]
