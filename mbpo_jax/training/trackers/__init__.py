"""Who else is told of runs while they train: TensorBoard, Weights & Biases, Trackio, one's own."""
