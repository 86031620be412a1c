"""Trainers that step by turns: ours, TRL's, LLaMA-Factory's, each in a process of its own.

`python -m benchmarks.peers.NAME '{...}'` is one of them, started and timed by `benchmarks/beside.py`.
"""
