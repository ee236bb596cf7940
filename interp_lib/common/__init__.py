"""What knows nothing of reinforcement learning: files, figures, statistics, and the machine around a command."""
