"""The simulator: the rank scheduler, the engines, critical paths, checkpoints and traces."""
