"""The names of Inception-ResNet-v2's arrays in each library."""
