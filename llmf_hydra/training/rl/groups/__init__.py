"""`stage=grpo` around TRL's trainers: their `arguments`, the seams of the `trainer`, and what a run keeps.

`answers` turns what TRL generates into what rewards read; `order` says which prompts come next; `state` is what a
checkpoint adds; `held_out` are the metrics of an evaluation; `table` is the file of answers and rewards.
"""
