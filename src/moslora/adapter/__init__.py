"""MoSLoRA as a tuner of PEFT 0.21: the only package that knows PEFT internals."""
