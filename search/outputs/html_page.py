"""Renders one self-contained HTML file: a template with its sections, everything escaped, and plotly.js."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from search.outputs.chart_layout import Figure


@dataclass(frozen=True)
class CaptionedImage:
    """An image and its caption."""

    png: str
    """A data URL."""
    caption: str


@dataclass(frozen=True)
class Section:
    """One part of the page: a sentence, and below it charts, a table, images or commands."""

    title: str
    sentence: str
    figures: list[Figure] = field(default_factory=list)
    side_by_side: bool = False
    images: list[CaptionedImage] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)
    """Rows of cells; the first row holds the names of the columns."""
    commands: list[str] = field(default_factory=list)


def render_page(template: str, sections: Sequence[Section], **values: Any) -> str:
    """Render the page as HTML.

    Args:
        template: Name of the template, which extends `page.html`.
        sections: The sections of the page.
        values: The other values that the template shows.
    """
    page = _environment().get_template(template)
    return page.render(
        nonce=secrets.token_urlsafe(16),
        plotly=_plotly(),
        sections=sections,
        figures=[section.figures for section in sections],
        **values,
    )


@cache
def _environment() -> jinja2.Environment:
    """Compiles each template once in a process."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _plotly() -> str:
    """The source of plotly.js, 4 MB."""
    return files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
