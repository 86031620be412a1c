"""Quantized weights: `weights` quantizes while a model loads, `saved` tells one that was saved quantized."""
