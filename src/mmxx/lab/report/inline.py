"""Foreign content made safe to stand in a page: drawings, pictures and formulas.

A run folder may come from someone else. Nothing of it reaches a page that was not rebuilt here
from a list of what is allowed: an SVG keeps its shapes and texts, and loses scripts, event
attributes, style sheets and every reference that leaves the file; a formula becomes MathML of
presentation elements only.
"""

from __future__ import annotations

import base64
import html
import re
import struct
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert_to_element
from markupsafe import Markup, escape

from mmxx.lab.formulas import FORMULA

_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
_MAX_DEPTH = 60
_SHAPES = frozenset(
    "svg g defs symbol use clipPath path rect circle ellipse line polyline polygon text tspan "
    "image linearGradient radialGradient stop".split()
)
_STYLES = frozenset(
    "fill fill-opacity fill-rule clip-rule stroke stroke-width stroke-opacity stroke-linecap "
    "stroke-linejoin stroke-dasharray stroke-dashoffset stroke-miterlimit opacity clip-path "
    "font-size font-style font-weight text-anchor dominant-baseline image-rendering stop-color "
    "stop-opacity".split()
)
_ATTRIBUTES = _STYLES | frozenset(
    "id d x y x1 y1 x2 y2 dx dy cx cy r rx ry fx fy width height viewBox transform points offset "
    "preserveAspectRatio gradientUnits gradientTransform clipPathUnits".split()
)
_PLAIN = re.compile(r"[\w\s#.,:%()+-]*")
_LOCAL_URL = re.compile(r"url\(#([\w.:-]+)\)")
_LOCAL_REF = re.compile(r"#([\w.:-]+)")
_DATA_PNG = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")
_NUMBERS = re.compile(r"[\s,]+")
_MATH_ATTRIBUTES = frozenset(
    "display displaystyle scriptlevel mathvariant mathcolor mathbackground mathsize stretchy "
    "fence separator form accent accentunder movablelimits largeop symmetric minsize maxsize "
    "lspace rspace width height depth voffset linethickness columnalign columnspacing columnlines "
    "rowspacing rowlines notation".split()
)


def prose(text: str) -> Markup:
    """Text with its ``$...$`` formulas as MathML; everything else is escaped.

    A formula that is not valid LaTeX stays as it was written.
    """
    parts, end = [], 0
    for match in FORMULA.finditer(text):
        parts += [escape(text[end : match.start()]), _formula(match[1]) or escape(match[0])]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def _formula(latex: str) -> Markup | None:
    try:
        tree = convert_to_element(latex)
    except Exception:  # the converter raises whatever its parser stumbles over
        return None
    for node in tree.iter():
        if not re.fullmatch(r"math|m[a-z]+", node.tag) or (node.text or "").startswith("\\"):
            return None  # an unknown command comes through as text
        # Numeric references arrive as text and would be escaped once more.
        node.text = html.unescape(node.text) if node.text else None
        node.attrib = {
            name: value
            for name, value in node.attrib.items()
            if name in _MATH_ATTRIBUTES and _PLAIN.fullmatch(value)
        }
    return Markup(ElementTree.tostring(tree, encoding="unicode"))  # noqa: S704 - rebuilt above


def svg(source: str, prefix: str, label: str) -> Markup | None:
    """A drawing, to stand in a page beside others.

    Args:
        source: The text of an SVG file.
        prefix: Put before every id, so that several drawings do not clash.
        label: What a screen reader says.

    Returns:
        The ``svg`` element, or None where the text is not a drawing.
    """
    if "<!ENTITY" in source:
        return None
    try:
        root = ElementTree.fromstring(source)  # noqa: S314 - no entities, see above
    except (ElementTree.ParseError, ValueError):
        return None
    clean = _clean(root, prefix, 0)
    if clean is None or clean.tag != "svg":
        return None
    box = _NUMBERS.split(clean.get("viewBox", "").strip())
    try:
        width, height = float(box[2]), float(box[3])
    except (IndexError, ValueError):
        return None
    if not (0 < width < 1e5 and 0 < height < 1e5):
        return None
    seen: set[str] = set()
    for node in clean.iter():  # matplotlib gives equal pictures one id
        if (name := node.get("id")) in seen:
            del node.attrib["id"]
        elif name is not None:
            seen.add(name)
    # Points to CSS pixels; the style sheet lets the drawing shrink with its column.
    clean.set("width", f"{width * 4 / 3:.0f}")
    clean.set("height", f"{height * 4 / 3:.0f}")
    clean.set("role", "img")
    clean.set("aria-label", label)
    return Markup(ElementTree.tostring(clean, encoding="unicode"))  # noqa: S704 - rebuilt above


def _clean(node: Element, prefix: str, depth: int) -> Element | None:
    tag = node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""
    if tag not in _SHAPES or depth > _MAX_DEPTH:
        return None
    clean = Element(tag, _attributes(node, tag, prefix))
    clean.text, clean.tail = node.text, node.tail
    for child in node:
        kept = _clean(child, prefix, depth + 1)
        if kept is not None:
            clean.append(kept)
    return clean


def _attributes(node: Element, tag: str, prefix: str) -> dict[str, str]:
    kept = {}
    for name, value in node.attrib.items():
        if name == "id":
            kept["id"] = prefix + value
        elif name in ("href", _XLINK_HREF):
            local = _LOCAL_REF.fullmatch(value.strip())
            picture = "".join(value.split())
            if local and tag != "image":
                kept["href"] = f"#{prefix}{local[1]}"
            elif tag == "image" and _DATA_PNG.fullmatch(picture):
                kept["href"] = picture
        elif name == "style":
            kept["style"] = ";".join(_declarations(value, prefix))
        elif name in _ATTRIBUTES and (safe := _value(value, prefix)) is not None:
            kept[name] = safe
    return kept


def _declarations(style: str, prefix: str) -> list[str]:
    kept = []
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        safe = _value(value, prefix)
        if name in _STYLES and safe is not None:
            kept.append(f"{name}:{safe}")
    return kept


def _value(value: str, prefix: str) -> str | None:
    if "url" in value.lower():
        match = _LOCAL_URL.fullmatch(value.strip())
        return f"url(#{prefix}{match[1]})" if match else None
    return value if _PLAIN.fullmatch(value) else None


def png(content: bytes) -> dict[str, Any] | None:
    """A PNG as a data URI, and the size at which it is shown; None where it is not one.

    A small picture is enlarged by a whole factor, so that its pixels stay square.
    """
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR" or len(content) < 33:
        return None
    width, height = struct.unpack(">II", content[16:24])
    factor = max(1, 288 // max(width, height, 1))
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    shown = {"width": width * factor, "height": height * factor, "enlarged": factor > 1}
    return {"uri": uri} | shown
