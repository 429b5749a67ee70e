"""Answers drawn from results: conclusions, recommendations, placements and replayed traffic."""
