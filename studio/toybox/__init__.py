"""Toybox: a small world that is drawn exactly, and the latent diffusion model that is trained on it."""
