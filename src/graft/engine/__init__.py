"""What Lightning leaves to its user: checkpoints, guards, exact behaviour."""
