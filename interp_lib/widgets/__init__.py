"""Interactive views for notebooks: :class:`ClusterBrowser`."""

from .cluster_browser import ClusterBrowser

__all__ = ["ClusterBrowser"]
