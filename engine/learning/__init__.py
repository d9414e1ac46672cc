"""Stacked networks and everything that trains them."""
