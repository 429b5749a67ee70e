"""Distributed training: loop, interface of algorithms, SGD, overlap, compute costs, metrics and workloads."""
