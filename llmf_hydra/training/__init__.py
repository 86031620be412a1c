"""What the stages share: `context` and its arguments, `trainer`, log-probabilities of tokens and pairs, losses, the
reference, generation, callbacks."""
