"""Titles and abstracts hold markup and formulas; this makes text of them that reads as it is meant."""

from collections.abc import Callable

import numpy as np
import polars as pl
from lxml import etree

# Faces and indices of PubMed's DTD; what else there is are formulas.
_SIMPLE = ("b", "i", "sub", "sup", "u")
_FORMULAS = "http://www.w3.org/1998/Math/MathML"
# What is well-formed fails only on prefixes declared further up: those are dropped, not the text.
# And what is too long or too deep for a parser, it would cut off without a word.
_PARSER = etree.XMLParser(
    resolve_entities=False, load_dtd=False, no_network=True, recover=True, huge_tree=True
)


def readable(written: pl.Series, marked: np.ndarray) -> pl.Series:
    """Texts of elements, as they are written in XML, as people read them; null where nothing is left.

    `marked`: bool, which of them hold more than plain characters. Markup is dropped, powers are kept as such
    (10<sup>-6</sup> must not read as 10-6), formulas and broken lines become one line.
    """
    places = np.flatnonzero(marked)
    if not len(places):
        return written
    texts = written.gather(places)
    plain = _evaluated(texts, _without_tags)
    formulas = np.flatnonzero(plain.str.contains("<", literal=True).fill_null(False).to_numpy())
    if len(formulas):
        simple = pl.Series([_without_formulas(text) for text in texts.gather(formulas)])
        plain = plain.scatter(formulas, _evaluated(simple, _without_tags))
    plain = _evaluated(plain, lambda texts: _without_entities(texts).str.strip_chars(" ").replace({"": None}))
    return written.scatter(places, plain)


def _evaluated(texts: pl.Series, expression: Callable[[pl.Expr], pl.Expr]) -> pl.Series:
    return texts.to_frame("text").select(expression(pl.col("text"))).to_series()


def _without_tags(texts: pl.Expr) -> pl.Expr:
    return (
        texts.str.replace_all("</?(?:b|i|u|sub) ?/?>", "")
        .str.replace_all("([0-9])<sup ?>([-+\u2013\u2212]?[0-9])", "${1}^${2}")
        .str.replace_all("</?sup ?/?>", "")
    )


def _without_entities(texts: pl.Expr) -> pl.Expr:
    written, meant = ["&lt;", "&gt;", "&quot;", "&apos;", "&amp;"], ["<", ">", '"', "'", "&"]
    # A parser that wrote a record left these alone.
    written, meant = [*written, "&#13;", "&#10;", "&#9;"], [*meant, "\n", "\n", "\t"]
    return texts.str.replace_many(written, meant).str.replace_all(r" *[\t\n][ \t\n]*", " ")


def _without_formulas(text: str) -> str:
    """Text with simple markup alone: formulas in one line of text, the tags of other elements gone."""
    root = etree.fromstring(f'<text xmlns:mml="{_FORMULAS}">{text}</text>', _PARSER)
    for formula in [element for element in root.iter("{*}math", "math") if element.getparent() is not None]:
        tail, line = formula.tail, _formula(formula)
        formula.clear()
        formula.text, formula.tail = line, tail
    others = {element.tag for element in root.iter() if element.tag not in _SIMPLE}
    etree.strip_tags(root, *others)
    for element in root.iter():
        element.attrib.clear()
    etree.cleanup_namespaces(root)
    whole = etree.tostring(root, encoding="unicode")
    return whole[whole.index(">") + 1 : whole.rindex("<")]


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
