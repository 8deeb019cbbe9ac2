"""MoSLoRA as a tuner of PEFT 0.21: the only package that knows PEFT internals."""

import peft as _peft  # noqa: F401 - first, since importing it registers this package's tuner, which imports the rest
