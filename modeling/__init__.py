"""Configs, models, processors and the pipeline: flat and self-contained, also as remote code on the Hub."""
