"""What each library calls the arrays of Inception-ResNet-v2."""
