"""SVG fit to stand inside a page with a strict content security policy."""

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
"""In points: a hundredth of one is finer than any screen, and half the bytes."""
INK = "#000000"
"""What is drawn in this colour takes the colour of the page's text, and so is legible on light and on dark."""


def standalone(svg: str) -> str:
    """Return `svg` without anything that a page must not run or load, and without a declaration.

    Only known elements and attributes stay. Styles become attributes, which a policy without inline styles
    lets through; black becomes ``currentColor``.
    """
    root = ElementTree.fromstring(svg)
    if root.tag != f"{{{SVG}}}svg":
        raise ValueError(f"expected an svg element, not {root.tag!r}")
    _clean(root)
    _drop_unused_names(root)
    for size in ("width", "height"):
        root.attrib.pop(size, None)  # the page decides; viewBox keeps the proportions
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
    """Take the shorthand ``[style] [weight] size family`` apart."""
    if found := re.fullmatch(r"(.*?)\s*([\d.]+px)\s+(.*)", value):
        words = found[1].split()
        element.set("font-size", found[2])
        element.set("font-family", found[3])
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
    """Return a :func:`standalone` picture whose names begin with `prefix`, so that two pictures' do not clash."""
    return re.sub(r'(\bid="|href="#|url\(#)', lambda found: found[1] + prefix, svg)


def on_white(svg: str) -> str:
    """Return a picture as a file of its own: cleaned as for a page, but black on white, whatever is around it."""
    picture = standalone(svg).replace("currentColor", INK)
    start = picture.index(">") + 1
    return f'{picture[:start]}<rect width="100%" height="100%" fill="#ffffff" />{picture[start:]}\n'
