"""Callbacks and loggers: things that happen at a moment of training; none computes a loss."""
