"""Configs, models, processors and the pipeline: flat, self-contained, also the Hub's remote code."""
