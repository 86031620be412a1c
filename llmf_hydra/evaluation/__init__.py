"""Multiple-choice benchmarks: a task's files become questions, questions prompts, and answers accuracies."""
