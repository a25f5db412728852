"""One line, or a small table in a notebook, about an object: what a person asks first, never its arrays."""

from __future__ import annotations

from html import escape

__all__ = ["ShortRepr", "counted", "shortened"]


class ShortRepr:
    """Gives a class its ``repr`` and ``_repr_html_`` from `_summary`; a dataclass needs ``repr=False``."""

    def _summary(self) -> dict[str, str]:
        """What matters, in words, by name; entries without a word are left out."""
        raise NotImplementedError

    def _said(self) -> dict[str, str]:
        return {name: text for name, text in self._summary().items() if text}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'; '.join(f'{name}: {text}' for name, text in self._said().items())})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{escape(name)}</th>'
            f'<td style="text-align:left">{escape(text)}</td></tr>'
            for name, text in self._said().items()
        )
        return f"<table><caption><b>{escape(type(self).__name__)}</b></caption>{rows}</table>"


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun, such as "22 atoms"; the plural with s where none is given."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def shortened(text: str, length: int = 70) -> str:
    """The text, or its beginning and … ."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
