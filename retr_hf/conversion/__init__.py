"""Other toolkits' checkpoints as model folders; what the scripts that convert share."""
