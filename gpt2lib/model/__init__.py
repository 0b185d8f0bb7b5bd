"""GPT-2: the model, what it is made of, and how its shape changes after training."""
