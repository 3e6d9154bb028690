"""What the machine gives: processes, memory, checkpoints, cost. Decides no bytes."""
