"""Interpreters of one request set: in memory, over a simulated network, over torch.distributed."""
