"""References written from the papers, in plain NumPy, that share no code with netsim."""

from __future__ import annotations

import numpy as np


def top_k(vector: np.ndarray, k: int) -> np.ndarray:
    """The k entries of largest magnitude, among equals those of lower index, others zero; never a zero."""
    order = sorted((i for i in range(len(vector)) if vector[i] != 0), key=lambda i: (-abs(vector[i]), i))
    kept = np.zeros_like(vector)
    for index in order[:k]:
        kept[index] = vector[index]
    return kept


def gtop_k(vectors: np.ndarray, k: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """gTop-k by the binomial tree: (result, what each rank dropped while merging)."""
    ranks = len(vectors)
    held = [top_k(vector, k) for vector in vectors]
    dropped = [np.zeros_like(vector) for vector in vectors]
    distance = 1
    while distance < ranks:
        for rank in range(0, ranks, 2 * distance):
            if rank + distance < ranks:
                total = held[rank] + held[rank + distance]
                held[rank] = top_k(total, k)
                dropped[rank] += total - held[rank]
        distance *= 2
    return held[0], dropped


def max_min(routes: list[list[int]], capacity: list[float]) -> list[float]:
    """Progressive filling, slow and obvious: raise all unfixed rates together until a link is full."""
    rates = [0.0] * len(routes)
    growing = set(range(len(routes)))
    while growing:
        room = []
        for link, limit in enumerate(capacity):
            users = [flow for flow in growing if link in routes[flow]]
            if users:
                used = sum(rates[flow] for flow in range(len(routes)) if link in routes[flow])
                room.append(((limit - used) / len(users), link))
        step, _ = min(room)
        for flow in growing:
            rates[flow] += step
        full = {link for spare, link in room if spare <= step * (1 + 1e-12) + 1e-9}
        growing = {flow for flow in growing if not full & set(routes[flow])}
    return rates
