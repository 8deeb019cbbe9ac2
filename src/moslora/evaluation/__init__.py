"""Scoring of models: the protocol of the paper and its fast equals."""
