"""Names in figures: class, stage and model names are users' text, and no font has every character."""

from __future__ import annotations

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

# Matplotlib brings the first; the others are what systems have for Chinese, Japanese and Korean.
_FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC", "Arial Unicode MS",
)  # fmt: skip


class Lettering:
    """The installed fonts to write names with, and what they can write.

    Attributes:
        fonts: families, in the order in which Matplotlib tries them.
    """

    def __init__(self) -> None:
        """Look which fonts there are."""
        installed = set(fontManager.get_font_names())
        self.fonts = [name for name in _FONTS if name in installed]
        files = [findfont(FontProperties(family=name)) for name in self.fonts]
        self._known = frozenset().union(*(get_font(file).get_charmap() for file in files))

    def can_write(self, text: str) -> bool:
        """Say whether the fonts have all characters."""
        return all(ord(character) in self._known for character in text)

    def line(self, text: str, longest: int | None = None) -> str:
        """Put a text on one line, shortened to ``longest`` characters, with ``?`` for what no font has."""
        text = " ".join(text.split())
        if longest is not None and len(text) > longest:
            text = text[: longest - 1] + "…"
        return "".join(character if self.can_write(character) else "?" for character in text)


def escape_formula(text: str) -> str:
    """Keep Matplotlib from reading ``$`` as the start of a formula, where it cannot be told otherwise."""
    return text.replace("$", r"\$")
