"""The command ``tinygrad-bn``."""
