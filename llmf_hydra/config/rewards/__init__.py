"""The list `rlhf.rewards`: what stands in it (`items`), and where its modules lie (`modules`)."""
