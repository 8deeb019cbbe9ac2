"""A small world of emoji scenes: what can be drawn, how it is told, and rules that read it back from a picture."""
