"""Numbers, times and names as a reader would like them."""

import re

from markupsafe import Markup


def number_text(value: float) -> str:
    """A number with four digits, large ones without an exponent.

    Example:
        >>> number_text(0.55494), number_text(10000.0), number_text(1e-5), number_text(3.0)
        ('0.5549', '10,000', '1e-05', '3')
    """
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """A time as one would say it.

    Example:
        >>> duration(42), duration(850.9), duration(7384)
        ('42 s', '14.2 min', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{minutes // 60} h {minutes % 60} min"


def quantity_title(name: str) -> str:
    """The name of a file or metric as words."""
    return "samples" if name == "epoch" else name.replace("_", " ")


def breakable(name: str) -> Markup:
    """A dotted or slashed name that may be broken into lines between its words.

    Example:
        >>> str(breakable("val/fid_best"))
        'val/<wbr>fid_<wbr>best'
    """
    return Markup("<wbr>").join(re.split(r"(?<=[/._])", name))
