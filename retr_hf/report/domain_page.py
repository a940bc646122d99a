"""A look at domains as one HTML page that needs nothing beside it: pictures inside, no script, no font, no address."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from .domain_facts import counted, facts
from .domain_figures import DPI, PANEL, domain_panels, panel_png

WIDTH, HEIGHT = (round(DPI * inches) for inches in PANEL)  # pixels of a picture


def domain_page(looks: Mapping[str, tuple[Any, Sequence[Any], str]]) -> str:
    """The page of one domain, or of several with a table that compares them. All texts of the data are escaped.

    Args:
        looks: label -> (``data.profile.domain_profile.DomainProfile``, its findings, advice on seen items).
    """
    synthetic = [label for label, (profile, _, _) in looks.items() if profile.reader == "synthetic"]
    return _template().render(looks=[_look(label, *parts) for label, parts in looks.items()], synthetic=synthetic)


def _look(label: str, profile: Any, findings: Sequence[Any], advice: str) -> dict[str, Any]:
    panels = [
        {
            "title": panel.title.replace("\n", ": "),
            "caption": panel.caption,
            "data": b64encode(panel_png(panel)).decode(),
            "width": WIDTH,
            "height": HEIGHT,
        }
        for panel in domain_panels(profile)
    ]
    return {
        "label": label,
        "facts": facts(profile),
        "counted": counted(findings),
        "findings": findings,
        "advice": advice,
        "tested": profile.targets.rows["test"] > 0,
        "panels": panels,
        "popular": profile.popularity.examples,
        **{key: getattr(profile, key) for key in ("reader", "retr_hf_version", "created")},
    }


@cache
def _template() -> Template:
    text = files(__package__).joinpath("domain_page.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(text)
