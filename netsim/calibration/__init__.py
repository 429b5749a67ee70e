"""Measuring what a network and its hosts cost: messages between two ranks, and work on one; no collective is fitted."""
