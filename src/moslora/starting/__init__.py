"""A first recipe for data of one's own: what the files, the model and the machine say, and what follows from it."""
