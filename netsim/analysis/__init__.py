"""Answers drawn from results: conclusions, recommendations, placements and replayed traffic."""

RECOMMEND_OPTIONS = (
    *("bandwidth", "latency", "bandwidth_scale", "latency_scale", "profile", "model", "elements", "select_time"),
    "merge_time",
    "dtype",
    "accumulate",
    "ready",
)
"""Declared options that a recommendation takes, besides the number of workers and the compute time."""
RECOMMEND_CHANGES: dict[str, dict[str, str]] = {
    "select_time": {"otherwise": "that of a --profile, or 0"},
    "merge_time": {"otherwise": "that of a --profile, or 0"},
    "ready": {
        "help": "With overlap, when buckets are ready: elements (ASSUMED: backward time is in proportion to elements, "
        "after a third of the compute time for forward, or half with elements:0.5); fractions of the compute time, "
        "0.5,0.8,1; or FILE.json of torch.profiler.",
        "otherwise": "elements",
    },
    "communicator": {"help": "With overlap, how a rank exchanges several buckets: {choices}. NCCL is serial."},
}
"""What a recommendation says of these options instead of their declarations: it measures nothing."""
DDP_BUCKET, NCCL_COMMUNICATOR = "25MB", "serial"
"""How PyTorch's DDP overlaps by default, over NCCL: the size of its buckets, and one bucket after another."""
FLOWS_OPTIONS = ("bandwidth", "latency", "bandwidth_scale", "latency_scale", "fan_out", "profile", "sharing")
"""Declared options that a replay of flows takes, besides the topology and the number of workers."""
NETWORK_CHANGES = {
    "workers": {"help": "Number of workers that the network has room for."},
    "profile": {
        "help": "File written by netsim calibrate: bandwidth and latency of links. Other options take precedence over "
        "it."
    },
}
"""What commands that simulate a network without training say of these options instead of their declarations."""
