"""Sweeps: many trials of one command line, each a process and a folder of its own."""
