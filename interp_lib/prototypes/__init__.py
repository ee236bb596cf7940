"""Notebook 04: what the prototypes of a ProtoSAC agent do while it plays. Everything begins with a PrototypeStudy."""

from .study import PrototypeStudy

__all__ = ["PrototypeStudy"]
