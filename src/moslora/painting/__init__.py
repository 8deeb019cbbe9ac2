"""Pictures from a diffusion pipeline: drawn from given noise, kept as files that say how, laid side by side."""
