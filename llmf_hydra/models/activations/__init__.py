"""What a forward pass keeps for the backward pass: without copies (`lora`), elementwise results computed again from what
is kept anyway (`recompute`), whole layers computed again (`layers`); `apply` chooses among them."""
