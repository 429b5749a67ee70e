"""Real ranks over torch.distributed: how they start, meet, run and fail."""
