"""Cleaning of SVG for pages whose content security policy forbids scripts, inline styles and external resources."""

from __future__ import annotations

import re
from xml.etree import ElementTree

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
ELEMENTS = {"svg", "g", "defs", "path", "rect", "circle", "line", "polyline", "polygon", "clipPath", "use", "text",
            "tspan", "title", "desc"}  # fmt: skip
ATTRIBUTES = {"clip-path", "cx", "cy", "d", "dx", "dy", "fill", "fill-opacity", "fill-rule", "font-family", "font-size",
              "font-style", "font-weight", "height", "id", "opacity", "points", "r", "rx", "ry", "stroke",
              "stroke-dasharray", "stroke-dashoffset", "stroke-linecap", "stroke-linejoin", "stroke-miterlimit",
              "stroke-opacity", "stroke-width", "text-anchor", "transform", "viewBox", "width", "x", "x1", "x2", "y",
              "y1", "y2"}  # fmt: skip
COORDINATES = {"d", "x", "y", "width", "height"}
"""Attributes in points, rounded to 0.01: finer than any screen, and half the bytes."""
INK = "#000000"
"""Elements of this colour take the colour of the page's text, which is legible on light and on dark pages."""


def standalone(svg: str) -> str:
    """Return `svg` reduced to the elements and attributes that draw, without an XML declaration.

    Styles become attributes, because the policy of the page forbids inline styles. Black becomes ``currentColor``.

    Raises
    ------
    ValueError
        If the root element is not ``svg``.
    """
    root = ElementTree.fromstring(svg)
    if root.tag != f"{{{SVG}}}svg":
        raise ValueError(f"expected an svg element, not {root.tag!r}")
    _clean(root)
    _drop_unused_names(root)
    for size in ("width", "height"):
        root.attrib.pop(size, None)  # the page sets the size; viewBox keeps the proportions
    root.attrib |= {"fill": "currentColor", "stroke-linejoin": "round", "stroke-linecap": "butt"}
    ElementTree.register_namespace("", SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element) -> None:
    for child in list(element):
        if child.tag.removeprefix(f"{{{SVG}}}") in ELEMENTS:
            _clean(child)
        else:
            element.remove(child)
    given = dict(element.attrib)
    element.attrib.clear()
    for declaration in given.pop("style", "").split(";"):
        name, _, value = declaration.partition(":")
        if name.strip():
            _set(element, name.strip(), value.strip())
    if (target := given.get("href", given.get(f"{{{XLINK}}}href", ""))).startswith("#"):
        element.set("href", target)
    for name, value in given.items():
        _set(element, name, value)


def _set(element: ElementTree.Element, name: str, value: str) -> None:
    if name == "font":
        _set_font(element, value)
    elif name in ATTRIBUTES and ("url(" not in value or re.fullmatch(r"url\(#[\w.-]+\)", value)):
        if name in COORDINATES:
            value = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), value)
        element.set(name, "currentColor" if value.lower() == INK and name in ("fill", "stroke") else value)


def _set_font(element: ElementTree.Element, value: str) -> None:
    """Set the font attributes from the shorthand ``[style] [weight] size family``."""
    if match := re.fullmatch(r"(.*?)\s*([\d.]+px)\s+(.*)", value):
        words = match[1].split()
        element.set("font-size", match[2])
        element.set("font-family", match[3])
        if "italic" in words:
            element.set("font-style", "italic")
        if heavy := [word for word in words if word == "bold" or word.isdigit()]:
            element.set("font-weight", heavy[0])


def _drop_unused_names(root: ElementTree.Element) -> None:
    used: set[str] = set()
    for element in root.iter():
        used.update(re.findall(r"#([\w.-]+)", element.get("href", "") + element.get("clip-path", "")))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)


def renamed(svg: str, prefix: str) -> str:
    """Return a :func:`standalone` picture with `prefix` before all element names, to keep pictures of a page apart."""
    return re.sub(r'(\bid="|href="#|url\(#)', lambda match: match[1] + prefix, svg)


def on_white(svg: str) -> str:
    """Return a picture for a separate file: cleaned as by :func:`standalone`, but black on white."""
    picture = standalone(svg).replace("currentColor", INK)
    start = picture.index(">") + 1
    return f'{picture[:start]}<rect width="100%" height="100%" fill="#ffffff" />{picture[start:]}\n'
