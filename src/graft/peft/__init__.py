"""What of a model is trained: the peft library's methods, and plain freezing."""
