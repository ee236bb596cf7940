"""Notebook 02: what agents return on training levels and unseen ones, and algorithms compared over tasks."""
