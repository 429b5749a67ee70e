"""Distributed training: its loop, what an algorithm is, SGD, overlap, compute costs, metrics and workloads."""
