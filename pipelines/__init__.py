"""The numerics: denoising loop, adapters and methods, on torch and diffusers, with no word of the application."""
