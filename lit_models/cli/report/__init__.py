"""``relit report``: everything that runs have left, on one HTML page."""

from lit_models.cli.report.page import main

__all__ = ["main"]
