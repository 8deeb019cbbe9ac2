"""Shipped recipes: one complete, commented run each."""
