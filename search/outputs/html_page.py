"""One HTML file that needs nothing else: a template of ours with its sections, everything escaped, and plotly.js."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from search.outputs.chart_layout import Figure


@dataclass(frozen=True)
class CaptionedImage:
    """An image, and what is seen in it."""

    png: str
    """As a data URL."""
    words: str


@dataclass(frozen=True)
class Section:
    """One part of the page: what one sees, in a sentence, and the charts."""

    title: str
    sentence: str
    figures: list[Figure] = field(default_factory=list)
    side_by_side: bool = False
    images: list[CaptionedImage] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)
    """Cells; the first row holds the names of the columns."""
    commands: list[str] = field(default_factory=list)


def render_page(template: str, sections: Sequence[Section], **values: Any) -> str:
    """The page as HTML.

    Args:
        template: Name of the template, which extends `page.html`.
        sections: The parts with charts.
        values: All that the template shows besides.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        nonce=secrets.token_urlsafe(16),
        plotly=files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8"),
        sections=sections,
        figures=[section.figures for section in sections],
        **values,
    )
