"""From notebooks to a report: run them with papermill, then show everything they left behind on one page."""

from .reproduce import reproduce

__all__ = ["reproduce"]
