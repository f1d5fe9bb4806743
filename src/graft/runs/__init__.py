"""Runs: what one leaves behind, and how it is loaded again."""
