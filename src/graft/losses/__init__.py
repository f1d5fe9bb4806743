"""Losses: pure functions from predictions and targets to one scalar."""
