"""Interactive views for notebooks: :class:`ClusterBrowser` and :class:`PrototypeBrowser`."""

from .cluster_browser import ClusterBrowser
from .prototype_browser import PrototypeBrowser

__all__ = ["ClusterBrowser", "PrototypeBrowser"]
