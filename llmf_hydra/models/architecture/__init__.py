"""What is done to a network when it is loaded: its config first, before the weights, then the network itself.

`apply.py` says in which order; `checks.py` refuses what can be refused without torch.
"""
