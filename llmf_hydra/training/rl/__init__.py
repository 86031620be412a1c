"""Online reinforcement learning: `plan` orders prompts, `rollouts` answers and scores them, `advantages` and `kl` shape
the reward, `buffer` and `source` feed the trainer."""
