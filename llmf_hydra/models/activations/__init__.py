"""What a forward pass keeps for the backward pass: elementwise results are computed again from what is kept anyway
(`recompute`, put into a network by `apply`), and whole layers where they are checkpointed (`layers`); what is
freed goes back to the system (`allocator`)."""
