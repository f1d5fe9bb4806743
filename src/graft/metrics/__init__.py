"""Metrics: collected over a split, computed once at its end."""
