"""Where the score of an answer comes from, for PPO and for GRPO.

PPO's own reward is an adapter, a model or a service (`protocol`, `build`). The list `rlhf.rewards`, which both stages
take, is made in `listed`: `verifiers` look at the text of an answer, by the `schemas` of files too, `function` calls a
user's, and each is called through `scoring`, which stops the run for what is no score, within a `time_limit` and with
the training `undisturbed`. `columns` looks for what they need in the rows. `checks`, `function` and `schemas` are
torch-free.
"""
