"""The parts of `stage=ppo`, in the order of their use.

`plan` says which prompts a buffer holds, `rollout` has the policy answer them, `reward_*` score the answers,
`collect` makes a `buffer` of it (`advantages`, `controller`), `source` hands the buffer out in batches, and
`trainer` optimizes the `losses`. `needs` is what is checked before anything loads.
"""
