"""Answers drawn from results: conclusions, recommendations, placements and replayed traffic."""

RECOMMEND_OPTIONS = (
    *("bandwidth", "latency", "bandwidth_scale", "latency_scale", "profile", "model", "elements", "select_time"),
    "merge_time",
    "dtype",
    "accumulate",
    "ready",
)
"""Declared options that a recommendation takes, besides the number of workers and the compute time."""
DDP_BUCKET, NCCL_COMMUNICATOR = "25MB", "serial"
"""How PyTorch's DDP overlaps by default, over NCCL: the size of its buckets, and one bucket after another."""
FLOWS_OPTIONS = ("bandwidth", "latency", "bandwidth_scale", "latency_scale", "fan_out", "profile", "sharing")
"""Declared options that a replay of flows takes, besides the topology and the number of workers."""
