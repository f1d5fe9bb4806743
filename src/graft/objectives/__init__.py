"""Objectives: transforms of the training step."""
