"""The Chinese README says what the English one says: commands, code, links, tables and figures, section by section."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGLISH, CHINESE = ((ROOT / name).read_text() for name in ("README.md", "README.zh-CN.md"))
_BLOCK = re.compile(r"```(\w+)\n(.*?)```", flags=re.DOTALL)


def sections(text: str) -> list[str]:
    """Parts that begin with a heading; the link to the other language is left out."""
    return re.split(
        r"^## ", re.sub(r"^\[(中文|English)\]\(README.*\)\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE
    )


PAIRS = list(zip(sections(ENGLISH), sections(CHINESE), strict=False))


def blocks(section: str) -> list[tuple[str, str]]:
    """Language and lines of every block of code, without the comments, which are translated."""
    return [(kind, re.sub(r" +# .*$", "", code, flags=re.MULTILINE)) for kind, code in _BLOCK.findall(section)]


def links(section: str) -> list[str]:
    """Where they lead, sorted; a page that is there in Chinese stands for the English one."""
    return sorted(target.replace(".zh-CN", "") for target in re.findall(r"\]\(([^)]+)\)", section))


def prose(section: str) -> str:
    """Without blocks, links and code in the line."""
    return re.sub(r"`[^`]+`", "", re.sub(r"\]\([^)]+\)", "]", _BLOCK.sub("", section)))


def rows(section: str) -> list[list[str]]:
    """The numbers in every row of a table but its headings."""
    table = re.sub(r"^\|.*\|\n(?=\|---)", "", section, flags=re.MULTILINE)
    return [re.findall(r"\d[\d,.]*", row) for row in re.findall(r"^\|.*\|$", table, flags=re.MULTILINE)]


def in_line(section: str) -> set[str]:
    """What is marked as code within sentences."""
    return set(re.findall(r"`[^`\n]+`", _BLOCK.sub("", section)))


def figures(section: str) -> set[str]:
    """Numerals in sentences."""
    return set(re.findall(r"\d[\d,.]*\d|\d", prose(section)))


def test_both_have_the_same_sections():
    assert len(sections(ENGLISH)) == len(sections(CHINESE))
    assert "](README.zh-CN.md)" in ENGLISH
    assert "](README.md)" in CHINESE


@pytest.mark.parametrize("number", range(len(PAIRS)))
def test_both_say_the_same(number):
    english, chinese = PAIRS[number]
    assert blocks(chinese) == blocks(english)
    assert links(chinese) == links(english)
    assert rows(chinese) == rows(english)
    assert in_line(chinese) == in_line(english)
    assert figures(english) - figures(chinese) == set()  # where English writes a word, Chinese may have a numeral


def test_links_of_the_chinese_one_lead_somewhere():
    assert [target for target in re.findall(r"\]\(([^)#]+)\)", CHINESE) if not (ROOT / target).exists()] == []


def test_chinese_has_the_textbooks_terms():
    """Those of Dive into Deep Learning, and not the others that are common."""
    pages = [CHINESE, *(path.read_text() for path in (ROOT / "docs" / "notebooks").glob("*.zh-CN.md"))]
    others = ("池化", "批量归一化", "批归一化", "丢弃法", "步长", "信道", "感知野")
    assert [word for word in others if any(word in page for page in pages)] == []
