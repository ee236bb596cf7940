"""Figures as pure functions: data in, matplotlib Figure out. One module a subject, one style for all."""
