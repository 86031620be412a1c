"""Online reinforcement learning in three steps, joined by `collector`.

`rollouts`: the policy answers the rows that `plan` chooses. `training/rewards`: each answer gets a score. Advantages:
`experience` holds what the models say of the answers, `estimator` applies the formulas of `advantages` and `kl`.
`buffer` and `source` feed the trainer. PPO's own: `losses`, `ppo_trainer`.
"""
