"""What the baselines need beside PEFT's own classes: AdaLoRA's allocation, PiSSA's difference, LoRA+'s optimiser."""
