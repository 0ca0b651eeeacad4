"""The Caffe file formats: schema, prototxt and binary files."""
