"""Write a result file so that a reader never sees half of it; and the script that every interactive figure needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from yarnlab.provenance import replacing

TEMPLATES = Path(__file__).parent / "report" / "templates"


def write(path: Path, data: str | bytes) -> Path:
    """Write `data` as a whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def page(template: str, filters: Mapping[str, Callable[..., Any]], **given: Any) -> str:
    """A page from a template of the report, in its look; text that is `given` is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= filters
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(css=css, **given)


def vega_file(figures: Path) -> Path:
    """Where that script is kept in the folder of figures."""
    return figures / f".vega-{version('vl-convert-python')}.js"


def vega(figures: Path) -> str:
    """Vega, Vega-Lite and vega-embed as one script, safe inside a page, from the package that draws the SVG files.

    Kept in the folder of figures: bundling takes 1.4 s of CPU, and a study has two dozen pages that need it.
    """
    import vl_convert

    kept = vega_file(figures)
    if not kept.is_file():
        bundle: Any = vl_convert.javascript_bundle  # its stub wrongly requires an argument
        write(kept, str(bundle()).replace("</script", "<\\/script"))
    return kept.read_text(encoding="utf-8")


def in_script(value: Any) -> str:
    """`value` as JSON that a page's script element may hold: without "<", no text in it ends or changes the script."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
