"""Titles and abstracts hold markup and formulas; this makes text of them that reads as it is meant."""

import re

from lxml import etree

_EXPONENT = re.compile(r"[-+\u2013\u2212]?[0-9]")
_SPACES = re.compile(r"[ \t\r\n]+")


def readable(element: etree._Element) -> str:
    """Text of an element: markup dropped, powers kept as such, formulas and broken lines in one line."""
    text = _mixed(element) if len(element) else element.text or ""
    if "\n" in text or "\t" in text:
        text = _SPACES.sub(" ", text)
    return text.strip()


def _mixed(element: etree._Element) -> str:
    text = element.text or ""
    for child in element:
        tag = etree.QName(child).localname
        if tag == "math":
            text += _formula(child)
        else:
            inner = _mixed(child)
            # 10<sup>-6</sup> must not read as 10-6.
            power = tag == "sup" and text[-1:].isdigit() and _EXPONENT.match(inner)
            text += f"^{inner}" if power else inner
        text += child.tail or ""
    return text


def _formula(element: etree._Element) -> str:  # noqa: PLR0911 - a return for each kind of formula
    """MathML in one line of text: fractions with /, powers with ^, prescripts before their base."""
    parts = [_formula(child) for child in element]
    tag = etree.QName(element).localname
    if not parts:
        return element.text or "" if tag == "mtext" else (element.text or "").strip()
    if tag == "mfrac":
        return "/".join(parts)
    if tag == "msup":
        return "^".join(parts)
    if tag == "msubsup":
        return "".join(parts[:2]) + "^" + "".join(parts[2:])
    if tag == "msqrt":
        return f"√({''.join(parts)})"
    if tag == "semantics":
        return parts[0]
    if tag == "mmultiscripts":
        kinds = [etree.QName(child).localname for child in element]
        middle = kinds.index("mprescripts") if "mprescripts" in kinds else len(parts)
        return "".join(parts[middle + 1 :]) + "".join(parts[:middle])
    return "".join(parts)
